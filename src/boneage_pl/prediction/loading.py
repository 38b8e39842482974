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
MISSING_SEX_MESSAGE = "unknown sex: give sex=F, sex=M or sex=unknown, or a table with a column sex"


def load_images(
    requests: Iterable[PredictionRequest],
    specs: Sequence[ResizeSpec],
    bit_depths: Sequence[int],
    threads: int,
    *,
    overlap: bool = False,
) -> Iterator[PredictionResult]:
    """Yield a result with image and sex, or an error, for each request, in order; two for an unknown sex.

    At most `PREFETCH` images are in memory. Decoders release the GIL, so threads use all cores.

    Args:
        requests: prediction requests.
        specs: preprocessing of the networks.
        bit_depths: see `load_radiograph`.
        threads: number of decoding threads; 0 to decode in this one.
        overlap: decode images while others are predicted, which pays on a GPU. A network on the same cores is
            slowed down more than that saves, because its threads synchronize at every layer.
    """
    load = partial(_load_image, specs=specs, bit_depths=bit_depths)
    if threads == 0:
        yield from chain.from_iterable(map(load, requests))
        return
    iterator = iter(requests)
    with ThreadPoolExecutor(threads) as pool:
        try:
            if overlap:
                yield from chain.from_iterable(bounded_map(pool, load, iterator, PREFETCH))
            else:
                while part := list(pool.map(load, islice(iterator, PREFETCH))):
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
    except Exception as problem:  # one bad file must not stop the others
        error = f"cannot be read ({type(problem).__name__})"
    tags = radiograph.tags if radiograph else None
    tag_male = tags.male if tags else None
    sexes: list[bool | None] = [None] if error else [False, True]
    if request.male != "unknown":
        sexes = [tag_male if request.male is None else request.male]
    results = []
    for male in sexes:
        prediction = Prediction(request.path, male, flags=list(flags), error=error)
        if radiograph:
            prediction.notes = list(radiograph.notes)
            prediction.chronological_age = tags.age if tags else None
            if radiograph.mirrored:
                prediction.flags.append("right_hand")
            if tag_male is not None and request.male not in ("unknown", tag_male, None):
                prediction.flags.append("sex_mismatch")
        if male is None and not error:
            prediction.error = MISSING_SEX_MESSAGE
        results.append(PredictionResult(request, prediction, dict(pixels), radiograph))
    return results
