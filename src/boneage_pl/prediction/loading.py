"""Load the images of prediction requests in threads."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, islice

from boneage_pl.data.images.checks import BLANK_IMAGE, BadImageError
from boneage_pl.data.images.radiograph import load_radiograph
from boneage_pl.data.images.resize import ResizeSpec
from boneage_pl.prediction.types import Prediction, PredictionRequest, PredictionResult
from boneage_pl.utils.processes import bounded_map

PREFETCH = 64  # images decoded ahead; our choice: two batches
MISSING_SEX_MESSAGE = "no sex is known: say sex=F, sex=M or sex=unknown, or give it in a table"


def load_images(
    requests: Iterable[PredictionRequest],
    specs: Sequence[ResizeSpec],
    bit_depths: Sequence[int],
    threads: int,
    *,
    overlap: bool = False,
) -> Iterator[PredictionResult]:
    """Yield what there is to predict of each request, in order: an image and a sex, or an error.

    Of an unknown sex it is both. No more than `PREFETCH` images are held. Decoders release the interpreter's
    lock, so that threads share the cores.

    Args:
        requests: prediction requests.
        specs: the sizes that the images are brought to.
        bit_depths: see `load_radiograph`.
        threads: that decode; 0 to decode in this one.
        overlap: whether images are decoded while others are predicted, as where a GPU predicts. A network on
            the same cores is slowed more than that saves: its threads wait for each other at every layer.
    """
    load = partial(_load_image, specs=specs, bit_depths=bit_depths)
    if threads == 0:
        yield from chain.from_iterable(map(load, requests))
        return
    coming = iter(requests)
    with ThreadPoolExecutor(threads) as pool:
        try:
            if overlap:
                yield from chain.from_iterable(bounded_map(pool, load, coming, PREFETCH))
            else:
                while part := list(pool.map(load, islice(coming, PREFETCH))):
                    yield from chain.from_iterable(part)
        finally:
            pool.shutdown(cancel_futures=True)


def _load_image(
    request: PredictionRequest, specs: Sequence[ResizeSpec], bit_depths: Sequence[int]
) -> list[PredictionResult]:
    radiograph, pixels, flags, error = None, {}, [], request.error
    try:
        if not error:
            radiograph = load_radiograph(request.image, bit_depths)
            pixels = {spec: spec.apply(radiograph.image) for spec in specs}
    except BadImageError as problem:
        error, flags = problem.reason, ["blank_image"] if problem.reason == BLANK_IMAGE else []
    except Exception as problem:  # one file of thousands must not end the others
        error = f"cannot be read ({type(problem).__name__})"
    tags = radiograph.tags if radiograph else None
    stated = tags.male if tags else None
    sexes: list[bool | None] = [None] if error else [False, True]
    if request.male != "unknown":
        sexes = [stated if request.male is None else request.male]
    results = []
    for male in sexes:
        prediction = Prediction(request.path, male, flags=list(flags), error=error)
        if radiograph:
            prediction.notes = list(radiograph.notes)
            prediction.chronological_age = tags.age if tags else None
            if radiograph.mirrored:
                prediction.flags.append("right_hand")
            if stated is not None and request.male not in ("unknown", stated, None):
                prediction.flags.append("sex_mismatch")
        if male is None and not error:
            prediction.error = MISSING_SEX_MESSAGE
        results.append(PredictionResult(request, prediction, dict(pixels), radiograph))
    return results
