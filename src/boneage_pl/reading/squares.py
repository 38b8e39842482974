"""Radiographs brought into a network's square, on all cores, a few at a time."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

from boneage_pl.data.frame import Frame, Pixels
from boneage_pl.data.images import ONE_VALUE, BadImageError
from boneage_pl.data.radiograph import Radiograph, open_radiograph
from boneage_pl.reading.answer import Question

AHEAD = 64  # pictures decoded before they are asked about; our choice: two batches


@dataclass
class Squares:
    """One question's picture in each square that is asked for.

    Args:
        question: that is asked.
        radiograph: as it was opened; `None` where it could not be.
        pixels: by square, uint8 [side, side].
        error: why there are none.
        flags: of what could not be opened.
    """

    question: Question
    radiograph: Radiograph | None = None
    pixels: dict[Frame, Pixels] = field(default_factory=dict)
    error: str = ""
    flags: list[str] = field(default_factory=list)


def squares_of(
    questions: Iterable[Question],
    frames: Sequence[Frame],
    levels: Sequence[int],
    threads: int,
    *,
    overlap: bool = False,
) -> Iterator[Squares]:
    """Yield each question's picture in their order; no more than `AHEAD` are held.

    Decoders let go of Python, so that threads share the cores.

    Args:
        questions: what is asked.
        frames: the squares.
        levels: see `open_radiograph`.
        threads: that decode; 0 to decode in this one, when asked.
        overlap: whether others are decoded while one is looked at, as where a GPU looks. A network on the
            same cores is slowed more than that saves: its threads wait for each other at every layer.
    """
    read = partial(_read, frames=frames, levels=levels)
    if threads == 0:
        yield from map(read, questions)
        return
    coming = iter(questions)
    with ThreadPoolExecutor(threads) as pool:
        try:
            if overlap:
                yield from _rolling(pool, read, coming)
            else:
                while part := list(pool.map(read, islice(coming, AHEAD))):
                    yield from part
        finally:
            pool.shutdown(cancel_futures=True)


def _rolling(
    pool: ThreadPoolExecutor, read: Callable[[Question], Squares], coming: Iterator[Question]
) -> Iterator[Squares]:
    waiting: deque[Future[Squares]] = deque(pool.submit(read, q) for q in islice(coming, AHEAD))
    while waiting:
        ready = waiting.popleft().result()
        waiting.extend(pool.submit(read, q) for q in islice(coming, 1))
        yield ready


def _read(question: Question, frames: Sequence[Frame], levels: Sequence[int]) -> Squares:
    if question.error:
        return Squares(question, error=question.error)
    try:
        radiograph = open_radiograph(question.picture, levels)
        pixels = {frame: frame.of(radiograph.image) for frame in frames}
        return Squares(question, radiograph, pixels)
    except BadImageError as error:
        return Squares(question, error=error.kind, flags=["blank"] if error.kind == ONE_VALUE else [])
    except (Exception, RecursionError) as error:  # one file of thousands must not end the others
        return Squares(question, error=f"cannot be read ({type(error).__name__})")
