"""Load the images of prediction requests in threads."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

from boneage_pl.data.images.decode import BLANK_IMAGE, BadImageError
from boneage_pl.data.images.radiograph import Radiograph, load_radiograph
from boneage_pl.data.images.resize import Pixels, ResizeSpec
from boneage_pl.prediction.types import PredictionRequest
from boneage_pl.utils.processes import bounded_map

PREFETCH = 64  # images decoded ahead; our choice: two batches


@dataclass
class LoadedImage:
    """The image of one request, resized for each network.

    Args:
        request: whose image it is.
        radiograph: as it was opened; `None` where it could not be.
        pixels: by size, uint8 [side, side].
        error: why there are none; else empty.
        flags: quality flags of what could not be opened.
    """

    request: PredictionRequest
    radiograph: Radiograph | None = None
    pixels: dict[ResizeSpec, Pixels] = field(default_factory=dict)
    error: str = ""
    flags: list[str] = field(default_factory=list)


def load_images(
    requests: Iterable[PredictionRequest],
    specs: Sequence[ResizeSpec],
    bit_depths: Sequence[int],
    threads: int,
    *,
    overlap: bool = False,
) -> Iterator[LoadedImage]:
    """Yield the image of each request in their order; no more than `PREFETCH` are held.

    Decoders let go of Python, so that threads share the cores.

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
        yield from map(load, requests)
        return
    coming = iter(requests)
    with ThreadPoolExecutor(threads) as pool:
        try:
            if overlap:
                yield from bounded_map(pool, load, coming, PREFETCH)
            else:
                while part := list(pool.map(load, islice(coming, PREFETCH))):
                    yield from part
        finally:
            pool.shutdown(cancel_futures=True)


def _load_image(
    request: PredictionRequest, specs: Sequence[ResizeSpec], bit_depths: Sequence[int]
) -> LoadedImage:
    if request.error:
        return LoadedImage(request, error=request.error)
    try:
        radiograph = load_radiograph(request.image, bit_depths)
        return LoadedImage(request, radiograph, {spec: spec.apply(radiograph.image) for spec in specs})
    except BadImageError as error:
        flags = ["blank_image"] if error.reason == BLANK_IMAGE else []
        return LoadedImage(request, error=error.reason, flags=flags)
    except (Exception, RecursionError) as error:  # one file of thousands must not end the others
        return LoadedImage(request, error=f"cannot be read ({type(error).__name__})")
