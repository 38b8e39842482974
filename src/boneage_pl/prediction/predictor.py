"""`BoneAgePredictor`: bone ages of radiographs, from one checkpoint or several."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isfinite
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boneage_pl.data.images.radiograph import ImageInput, Radiograph
from boneage_pl.data.images.resize import Pixels, ResizeSpec
from boneage_pl.model.inference import PredictionBatch, average_predictions
from boneage_pl.prediction.conformal import ConformalIntervals, calibrate, check_coverage_level
from boneage_pl.prediction.ensemble import EnsembleMember, MemberOutput, parse_tta
from boneage_pl.prediction.inputs import expand_inputs, parse_sex
from boneage_pl.prediction.loading import LoadedImage, load_images
from boneage_pl.prediction.types import Prediction, PredictionRequest
from boneage_pl.training.runs import find_checkpoints
from boneage_pl.utils.processes import cores

NamedImage = str | PathLike[str]
MISSING_SEX_MESSAGE = "no sex is known: say sex=F, sex=M or sex=unknown, or give it in a table"


@dataclass
class PredictionResult:
    """An answer, and the picture that it is of.

    Args:
        request: what was predicted.
        prediction: to it.
        pixels: by square, uint8 [side, side], as the networks saw it; nothing where there is no answer.
        radiograph: as it was opened; `None` where it could not be.
    """

    request: PredictionRequest
    prediction: Prediction
    pixels: dict[ResizeSpec, Pixels]
    radiograph: Radiograph | None = None


class BoneAgePredictor:
    """A trained checkpoint, or several whose answers are averaged.

    Args:
        members: the checkpoints.
        interval_level: of the intervals, see `ConformalIntervals`.
    """

    def __init__(self, members: Sequence[EnsembleMember], level: float = 0.9) -> None:
        self.members = list(members)
        self.intervals: ConformalIntervals = calibrate([member.metadata for member in members], level)
        self.resize_specs = list(dict.fromkeys(member.resize_spec for member in members))

    @classmethod
    def load(
        cls,
        ckpt: NamedImage | Sequence[NamedImage],
        *,
        interval_level: float = 0.9,
        tta: Any = None,
        output_dir: NamedImage = "outputs",
        device: str | None = None,
        trusted_config: Any = None,
    ) -> "BoneAgePredictor":
        """Read what `ckpt` names.

        Args:
            ckpt: a checkpoint's path, a run's folder or an experiment's name, or a sweep's folder: all its
                runs; or several of these.
            interval_level: share of new images whose age an interval is to hold.
            tta: test-time augmentations: `"flip"`, degrees to rotate by, or a list of both; `None` for those
                of each checkpoint's experiment, `[]` for none.
            output_dir: folder in which experiment names are looked up.
            device: `None` for a GPU where there is one.
            trusted_config: a configuration of the user's own whose objects a checkpoint may name, see `load`.

        Raises:
            BoneAgeError: there is no such checkpoint, it cannot be read, or an option cannot be right.
        """
        check_coverage_level(interval_level)
        parse_tta(tta)  # refused before anything is loaded
        names = [ckpt] if isinstance(ckpt, str | PathLike) else list(ckpt)
        paths = find_checkpoints(names, Path(output_dir))
        return cls([EnsembleMember(path, tta, device, trusted_config) for path in paths], interval_level)

    def predict(self, images: ImageInput | Sequence[ImageInput], sex: Any = None) -> list[Prediction]:
        """Return an answer for each image, or two where the sex is unknown.

        A file that cannot be read has one too, without months and with its `error`.

        Args:
            images: a file, a folder, a pattern, a table (see `expand_inputs`), a Pillow image or an array of
                gray values [H, W]; or a list of these.
            sex: `"F"`, `"M"` or `"unknown"`, of all or of each; `None` where the files or a table say.

        Raises:
            BoneAgeError: a name under which there is nothing, or a sex that is none.
        """
        single = isinstance(images, str | PathLike) or not isinstance(images, Sequence)
        listed: list[Any] = [images] if single else list(images)  # type: ignore[arg-type, list-item]
        several = isinstance(sex, Sequence | np.ndarray) and not isinstance(sex, str)
        sexes = list(sex) if several else [sex] * len(listed)
        if len(sexes) != len(listed):
            raise ValueError(f"{len(listed)} images and {len(sexes)} sexes")
        requests: list[PredictionRequest] = []
        for image, of_one in zip(listed, sexes, strict=True):
            if isinstance(image, str | PathLike):
                requests += expand_inputs([str(image)], of_one)
            else:
                requests.append(PredictionRequest(image, parse_sex(of_one)))
        return [reading.prediction for reading in self.predict_iter(requests)]

    def predict_iter(
        self, requests: Iterable[PredictionRequest], batch: int = 32
    ) -> Iterator[PredictionResult]:
        """Yield the result of each request, in order; only a few batches are held in memory.

        Args:
            requests: see `expand_inputs`.
            batch: pictures that a network is shown at once.
        """
        first = self.members[0].metadata
        coming = iter(requests)
        start = list(islice(coming, 2))
        threads = cores() if len(start) > 1 else 0
        gpu = self.members[0].predictor.device.type != "cpu"
        every = load_images(_chain(start, coming), self.resize_specs, first.bit_depths, threads, overlap=gpu)
        while part := list(islice(every, batch)):
            yield from self._predict_chunk(part)

    def _predict_chunk(self, part: list[LoadedImage]) -> Iterator[PredictionResult]:
        rows = [(squares, male) for squares in part for male in _sexes(squares)]
        shown = [(at, squares, male) for at, (squares, male) in enumerate(rows) if _has_input(squares, male)]
        answers = [_to_prediction(squares, male) for squares, male in rows]
        pixels = [dict(squares.pixels) for squares, _ in rows]
        if shown:
            every = [squares for _, squares, _ in shown]
            male = [bool(m) for _, _, m in shown]
            stacked = {f: np.stack([s.pixels[f] for s in every]) for f in self.resize_specs}
            sizes = [s.radiograph.image.size for s in every if s.radiograph]
            batch, is_ood, mismatch, inverted = self._predict_or_invert(stacked, male, sizes)
            for k, (at, _, _) in enumerate(shown):
                flags = [
                    ("inverted", inverted[k]),
                    ("out_of_distribution", is_ood[k]),
                    ("resolution_mismatch", mismatch[k]),
                ]
                self._fill_prediction(answers[at], batch, k, [name for name, there in flags if there])
                if inverted[k]:
                    pixels[at] = {frame: 255 - of_one for frame, of_one in pixels[at].items()}
        for (squares, _), answer, of_one in zip(rows, answers, pixels, strict=True):
            yield PredictionResult(squares.request, answer, of_one, squares.radiograph)

    def _fill_prediction(self, answer: Prediction, batch: PredictionBatch, k: int, flags: list[str]) -> None:
        answer.flags += flags
        months = float(batch.months[k])
        if not isfinite(months):
            answer.error = "the network's answer is no number: its training diverged"
            return
        answer.months = months
        answer.std = None if batch.std is None else float(batch.std[k])
        assert answer.male is not None
        if (width := self.intervals.half_width(months, male=answer.male)) is not None:
            answer.lower, answer.upper = max(months - width, 0.0), months + width

    def _predict_or_invert(
        self, pixels: dict[ResizeSpec, Pixels], male: list[bool], sizes: list[tuple[int, int]]
    ) -> tuple[PredictionBatch, NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
        """Return predictions, OOD and resolution flags, and which images had to be inverted: [B].

        An out-of-distribution image whose negative is in-distribution is taken for a negative.
        """
        predictions, is_ood, mismatch = self._average_members(pixels, male, sizes)
        inverted = np.zeros(len(male), dtype=bool)
        odd = np.flatnonzero(is_ood)
        if len(odd):
            negatives = {frame: 255 - every[odd] for frame, every in pixels.items()}
            theirs, still, _ = self._average_members(
                negatives, [male[k] for k in odd], [sizes[k] for k in odd]
            )
            right = odd[~still]
            for ours, of_negatives in zip(predictions, theirs, strict=True):
                if ours is not None and of_negatives is not None:
                    ours[right] = of_negatives[~still]
            inverted[right], is_ood[right] = True, False
        return predictions, is_ood, mismatch, inverted

    def _average_members(
        self, pixels: dict[ResizeSpec, Pixels], male: list[bool], sizes: list[tuple[int, int]]
    ) -> tuple[PredictionBatch, NDArray[np.bool_], NDArray[np.bool_]]:
        looked = [member.predict_batch(pixels[member.resize_spec], male, sizes) for member in self.members]
        return (
            average_predictions([one.predictions for one in looked]),
            _majority(looked, "is_ood", len(male)),
            _majority(looked, "resolution_mismatch", len(male)),
        )


def _chain(start: list[PredictionRequest], rest: Iterator[PredictionRequest]) -> Iterator[PredictionRequest]:
    yield from start
    yield from rest


def _majority(looked: list[MemberOutput], what: str, count: int) -> NDArray[np.bool_]:
    """Return what more than half of the members say, of those that can tell."""
    votes = [vote for one in looked if (vote := getattr(one, what)) is not None]
    if not votes:
        return np.zeros(count, dtype=bool)
    return np.mean(votes, axis=0) > 0.5


def _sexes(squares: LoadedImage) -> list[bool | None]:
    """Return the sexes to predict an image for."""
    male = squares.request.male
    if male == "unknown":
        return [None] if squares.error else [False, True]
    if male is None and squares.radiograph and squares.radiograph.tags:
        return [squares.radiograph.tags.male]
    return [male]


def _has_input(squares: LoadedImage, male: bool | None) -> bool:
    return male is not None and not squares.error


def _to_prediction(squares: LoadedImage, male: bool | None) -> Prediction:
    answer = Prediction(squares.request.path, male, flags=list(squares.flags), error=squares.error)
    if radiograph := squares.radiograph:
        answer.notes = list(radiograph.notes)
        answer.flags += ["right_hand"] if radiograph.mirrored else []
        answer.chronological_age = radiograph.tags.age if radiograph.tags else None
    if male is None and not answer.error:
        answer.error = MISSING_SEX_MESSAGE
    return answer
