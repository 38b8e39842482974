"""A trained model as a person uses it: radiographs in, answers out."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isfinite
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boneage_pl.data.frame import Frame, Pixels
from boneage_pl.data.radiograph import Picture, Radiograph
from boneage_pl.machine.pool import cores
from boneage_pl.model.inference import Said, together
from boneage_pl.reading.answer import Answer, Question
from boneage_pl.reading.intervals import Intervals, check_level, intervals_of
from boneage_pl.reading.member import Looked, Member, views_of
from boneage_pl.reading.sources import questions, sex_of
from boneage_pl.reading.squares import Squares, squares_of
from boneage_pl.run.runs import find_checkpoints

Named = str | PathLike[str]
NO_SEX = "no sex is known: say sex=F, sex=M or sex=unknown, or give it in a table"


@dataclass
class Reading:
    """An answer, and the picture that it is of.

    Args:
        question: that was asked.
        answer: to it.
        pixels: by square, uint8 [side, side], as the networks saw it; nothing where there is no answer.
        radiograph: as it was opened; `None` where it could not be.
    """

    question: Question
    answer: Answer
    pixels: dict[Frame, Pixels]
    radiograph: Radiograph | None = None


class BoneAge:
    """A trained checkpoint, or several whose answers are averaged.

    Args:
        members: the checkpoints.
        level: of the intervals, see `Intervals`.
    """

    def __init__(self, members: Sequence[Member], level: float = 0.9) -> None:
        self.members = list(members)
        self.intervals: Intervals = intervals_of([member.record for member in members], level)
        self.frames = list(dict.fromkeys(member.frame for member in members))

    @classmethod
    def load(
        cls,
        ckpt: Named | Sequence[Named],
        *,
        level: float = 0.9,
        views: Any = None,
        outputs: Named = "outputs",
        device: str | None = None,
        repeated: Any = None,
    ) -> "BoneAge":
        """Read what `ckpt` names.

        Args:
            ckpt: a checkpoint's path, a run's folder or an experiment's name, or a sweep's folder: all its
                runs; or several of these.
            level: share of new images whose age an interval is to hold.
            views: each picture is looked at in further ways and the answers averaged: `"flip"`, degrees to
                turn it by, or a list of these.
            outputs: the folder in which names are looked for.
            device: `None` for a GPU where there is one.
            repeated: a configuration of the user's own whose objects a checkpoint may name, see `load`.

        Raises:
            BoneageError: there is no such checkpoint, it cannot be read, or an option cannot be right.
        """
        check_level(level)
        ways = views_of(views)
        names = [ckpt] if isinstance(ckpt, str | PathLike) else list(ckpt)
        paths = find_checkpoints(names, Path(outputs))
        return cls([Member(path, ways, device, repeated) for path in paths], level)

    def predict(self, images: Picture | Sequence[Picture], sex: Any = None) -> list[Answer]:
        """Return an answer for each image, or two where the sex is unknown.

        A file that cannot be read has one too, without months and with its `error`.

        Args:
            images: a file, a folder, a pattern, a table (see `questions`), a Pillow image or an array of gray
                values [H, W]; or a list of these.
            sex: `"F"`, `"M"` or `"unknown"`, of all or of each; `None` where the files or a table say.

        Raises:
            BoneageError: a name under which there is nothing, or a sex that is none.
        """
        single = isinstance(images, str | PathLike) or not isinstance(images, Sequence)
        listed: list[Any] = [images] if single else list(images)  # type: ignore[arg-type, list-item]
        several = isinstance(sex, Sequence | np.ndarray) and not isinstance(sex, str)
        sexes = list(sex) if several else [sex] * len(listed)
        if len(sexes) != len(listed):
            raise ValueError(f"{len(listed)} images and {len(sexes)} sexes")
        asked: list[Question] = []
        for image, of_one in zip(listed, sexes, strict=True):
            if isinstance(image, str | PathLike):
                asked += questions([str(image)], of_one)
            else:
                asked.append(Question(image, sex_of(of_one)))
        return [reading.answer for reading in self.readings(asked)]

    def readings(self, asked: Iterable[Question], batch: int = 32) -> Iterator[Reading]:
        """Yield the answer to each question, in order; no more than a few batches are held.

        Args:
            asked: what is asked, see `questions`.
            batch: pictures that a network is shown at once.
        """
        first = self.members[0].record
        coming = iter(asked)
        start = list(islice(coming, 2))
        threads = cores() if len(start) > 1 else 0
        gpu = self.members[0].ask.place.type != "cpu"
        every = squares_of(_chain(start, coming), self.frames, first.levels, threads, overlap=gpu)
        while part := list(islice(every, batch)):
            yield from self._answered(part)

    def _answered(self, part: list[Squares]) -> Iterator[Reading]:
        rows = [(squares, male) for squares in part for male in _sexes(squares)]
        shown = [
            (at, squares, male) for at, (squares, male) in enumerate(rows) if _can_be_asked(squares, male)
        ]
        answers = [_answer(squares, male) for squares, male in rows]
        pixels = [dict(squares.pixels) for squares, _ in rows]
        if shown:
            every = [squares for _, squares, _ in shown]
            male = [bool(m) for _, _, m in shown]
            stacked = {f: np.stack([s.pixels[f] for s in every]) for f in self.frames}
            sizes = [s.radiograph.image.size for s in every if s.radiograph]
            said, strange, sharpness, inverted = self._looked(stacked, male, sizes)
            for k, (at, _, _) in enumerate(shown):
                flags = [("inverted", inverted[k]), ("unfamiliar", strange[k]), ("sharpness", sharpness[k])]
                self._fill(answers[at], said, k, [name for name, there in flags if there])
                if inverted[k]:
                    pixels[at] = {frame: 255 - of_one for frame, of_one in pixels[at].items()}
        for (squares, _), answer, of_one in zip(rows, answers, pixels, strict=True):
            yield Reading(squares.question, answer, of_one, squares.radiograph)

    def _fill(self, answer: Answer, said: Said, k: int, flags: list[str]) -> None:
        answer.flags += flags
        months = float(said.months[k])
        if not isfinite(months):
            answer.error = "the network's answer is no number: its training diverged"
            return
        answer.months = months
        answer.spread = None if said.spread is None else float(said.spread[k])
        assert answer.male is not None
        if (width := self.intervals.half_width(months, male=answer.male)) is not None:
            answer.low, answer.high = max(months - width, 0.0), months + width

    def _looked(
        self, pixels: dict[Frame, Pixels], male: list[bool], sizes: list[tuple[int, int]]
    ) -> tuple[Said, NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
        """Return answers, what is strange, what is not of their sharpness, and what had to be inverted: [B].

        A strange picture whose negative is familiar is a negative.
        """
        said, strange, sharpness = self._all(pixels, male, sizes)
        inverted = np.zeros(len(male), dtype=bool)
        odd = np.flatnonzero(strange)
        if len(odd):
            negatives = {frame: 255 - every[odd] for frame, every in pixels.items()}
            theirs, still, _ = self._all(negatives, [male[k] for k in odd], [sizes[k] for k in odd])
            right = odd[~still]
            for ours, of_negatives in zip(said, theirs, strict=True):
                if ours is not None and of_negatives is not None:
                    ours[right] = of_negatives[~still]
            inverted[right], strange[right] = True, False
        return said, strange, sharpness, inverted

    def _all(
        self, pixels: dict[Frame, Pixels], male: list[bool], sizes: list[tuple[int, int]]
    ) -> tuple[Said, NDArray[np.bool_], NDArray[np.bool_]]:
        looked = [member.look(pixels[member.frame], male, sizes) for member in self.members]
        return (
            together([one.said for one in looked]),
            _most(looked, "strange", len(male)),
            _most(looked, "sharpness", len(male)),
        )


def _chain(start: list[Question], rest: Iterator[Question]) -> Iterator[Question]:
    yield from start
    yield from rest


def _most(looked: list[Looked], what: str, count: int) -> NDArray[np.bool_]:
    """Return what more than half of the members say, of those that can tell."""
    votes = [vote for one in looked if (vote := getattr(one, what)) is not None]
    if not votes:
        return np.zeros(count, dtype=bool)
    return np.mean(votes, axis=0) > 0.5


def _sexes(squares: Squares) -> list[bool | None]:
    """Return the sexes that a picture is to be answered for."""
    male = squares.question.male
    if male == "unknown":
        return [None] if squares.error else [False, True]
    if male is None and squares.radiograph and squares.radiograph.tags:
        return [squares.radiograph.tags.male]
    return [male]


def _can_be_asked(squares: Squares, male: bool | None) -> bool:
    return male is not None and not squares.error


def _answer(squares: Squares, male: bool | None) -> Answer:
    answer = Answer(squares.question.path, male, flags=list(squares.flags), error=squares.error)
    if radiograph := squares.radiograph:
        answer.notes = list(radiograph.notes)
        answer.flags += ["right_hand"] if radiograph.mirrored else []
        answer.age = radiograph.tags.age if radiograph.tags else None
    if male is None and not answer.error:
        answer.error = NO_SEX
    return answer
