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
        pixels: by square, uint8 [side, side].
        error: why there are none.
        flags: of what could not be opened.
    """

    request: PredictionRequest
    radiograph: Radiograph | None = None
    pixels: dict[ResizeSpec, Pixels] = field(default_factory=dict)
    error: str = ""
    flags: list[str] = field(default_factory=list)


def load_images(
    questions: Iterable[PredictionRequest],
    frames: Sequence[ResizeSpec],
    levels: Sequence[int],
    threads: int,
    *,
    overlap: bool = False,
) -> Iterator[LoadedImage]:
    """Yield each question's picture in their order; no more than `PREFETCH` are held.

    Decoders let go of Python, so that threads share the cores.

    Args:
        questions: prediction requests.
        frames: the squares.
        levels: see `load_radiograph`.
        threads: that decode; 0 to decode in this one.
        overlap: whether others are decoded while one is looked at, as where a GPU looks. A network on the
            same cores is slowed more than that saves: its threads wait for each other at every layer.
    """
    read = partial(_load_image, frames=frames, levels=levels)
    if threads == 0:
        yield from map(read, questions)
        return
    coming = iter(questions)
    with ThreadPoolExecutor(threads) as pool:
        try:
            if overlap:
                yield from bounded_map(pool, read, coming, PREFETCH)
            else:
                while part := list(pool.map(read, islice(coming, PREFETCH))):
                    yield from part
        finally:
            pool.shutdown(cancel_futures=True)


def _load_image(
    question: PredictionRequest, frames: Sequence[ResizeSpec], levels: Sequence[int]
) -> LoadedImage:
    if question.error:
        return LoadedImage(question, error=question.error)
    try:
        radiograph = load_radiograph(question.image, levels)
        pixels = {frame: frame.apply(radiograph.image) for frame in frames}
        return LoadedImage(question, radiograph, pixels)
    except BadImageError as error:
        return LoadedImage(
            question, error=error.reason, flags=["blank_image"] if error.reason == BLANK_IMAGE else []
        )
    except (Exception, RecursionError) as error:  # one file of thousands must not end the others
        return LoadedImage(question, error=f"cannot be read ({type(error).__name__})")
