"""`BoneAgePredictor`: predict with one checkpoint or an ensemble."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from math import isfinite
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ImageOps

from boneage_pl.data.images.radiograph import ImageInput
from boneage_pl.model.inference import PredictionBatch, average_predictions
from boneage_pl.prediction.conformal import ConformalIntervals, calibrate, check_coverage_level
from boneage_pl.prediction.ensemble import EnsembleMember, parse_tta
from boneage_pl.prediction.inputs import expand_inputs, parse_sex
from boneage_pl.prediction.loading import load_images
from boneage_pl.prediction.ood import Flags
from boneage_pl.prediction.types import Prediction, PredictionRequest, PredictionResult
from boneage_pl.training.runs import find_checkpoints
from boneage_pl.utils.processes import cores

NamedImage = str | PathLike[str]


class BoneAgePredictor:
    """A trained checkpoint, or an ensemble whose predictions are averaged.

    Args:
        members: the checkpoints.
        level: coverage of the intervals, see `ConformalIntervals`.
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
        """Load the checkpoints that `ckpt` names.

        Args:
            ckpt: a checkpoint's path, a run's folder, an experiment's name, a sweep's folder (all its runs),
                or several of these.
            interval_level: nominal coverage of the prediction intervals.
            tta: test-time augmentations: `"flip"`, degrees to rotate by, or a list of both; `None` for those
                of each checkpoint's experiment, `[]` for none.
            output_dir: folder of the runs, for experiment names.
            device: `None` for a GPU if available.
            trusted_config: the user's own configuration, whose classes a checkpoint may use.

        Raises:
            BoneAgeError: missing or unreadable checkpoint, or an invalid option.
        """
        check_coverage_level(interval_level)
        parse_tta(tta)  # rejected before anything is loaded
        names = [ckpt] if isinstance(ckpt, str | PathLike) else list(ckpt)
        paths = find_checkpoints(names, Path(output_dir))
        return cls([EnsembleMember(path, tta, device, trusted_config) for path in paths], interval_level)

    def predict(self, images: ImageInput | Sequence[ImageInput], sex: Any = None) -> list[Prediction]:
        """Return the prediction of each image, or two (a girl's and a boy's) if the sex is unknown.

        The prediction of an unreadable file has an `error` instead of months.

        Args:
            images: a file, a folder, a pattern, a table (see `expand_inputs`), a file's bytes, a Pillow image
                or an array of gray values [H, W]; or a list of these.
            sex: `"F"`, `"M"` or `"unknown"`, for all or for each; `None` to read it from files or a table.

        Raises:
            BoneAgeError: nothing found under a name, or an invalid sex.

        Example:
            >>> girl, boy = model.predict("hand.png", sex="unknown")
            >>> girl.sex, boy.sex, girl.lower <= girl.months <= girl.upper
            ('F', 'M', True)
            >>> array = np.asarray(Image.open("hand.png"))
            >>> [round(p.months) for p in model.predict([array, array], ["F", "M"])] == [
            ...     round(girl.months), round(boy.months)]
            True
        """
        single = isinstance(images, str | PathLike | bytes) or not isinstance(images, Sequence)
        listed: list[Any] = [images] if single else list(images)  # type: ignore[arg-type, list-item]
        several = isinstance(sex, Sequence | np.ndarray) and not isinstance(sex, str)
        sexes = list(sex) if several else [sex] * len(listed)
        if len(sexes) != len(listed):
            raise ValueError(f"{len(listed)} images and {len(sexes)} sexes")
        requests: list[PredictionRequest] = []
        for image, image_sex in zip(listed, sexes, strict=True):
            if isinstance(image, str | PathLike):
                requests += expand_inputs([str(image)], image_sex)
            else:
                requests.append(PredictionRequest(image, parse_sex(image_sex)))
        return [result.prediction for result in self.predict_iter(requests)]

    def predict_iter(
        self, requests: Iterable[PredictionRequest], batch: int = 32
    ) -> Iterator[PredictionResult]:
        """Yield the results of requests, in order, with only a few batches in memory.

        Args:
            requests: see `expand_inputs`.
            batch: batch size.
        """
        first = self.members[0].metadata
        iterator = iter(requests)
        start = list(islice(iterator, 2))
        threads = cores() if len(start) > 1 else 0
        gpu = self.members[0].predictor.device.type != "cpu"
        loaded = load_images(
            chain(start, iterator), self.resize_specs, first.bit_depths, threads, overlap=gpu
        )
        while part := list(islice(loaded, batch)):
            if valid := [result for result in part if not result.prediction.error]:
                self._fill_predictions(valid)
            yield from part

    def _fill_predictions(self, results: list[PredictionResult]) -> None:
        """Predict; invert an out-of-distribution image if its negative is in-distribution."""
        batch, flags = self._average_members(results)
        odd = np.flatnonzero(flags.get("out_of_distribution", [])).tolist()
        negatives = [_invert(results[at]) for at in odd]
        sources = [(result, batch, flags, at) for at, result in enumerate(results)]
        if negatives:
            negative_batch, negative_flags = self._average_members(negatives)
            for k, at in enumerate(odd):
                if not negative_flags["out_of_distribution"][k]:
                    results[at].pixels = negatives[k].pixels
                    results[at].prediction.flags.append("inverted")
                    sources[at] = (results[at], negative_batch, negative_flags, k)
        for result, predicted, raised, at in sources:
            result.prediction.flags += [name for name, applies in raised.items() if applies[at]]
            self._fill_prediction(result.prediction, predicted, at)

    def _fill_prediction(self, prediction: Prediction, batch: PredictionBatch, k: int) -> None:
        months = float(batch.months[k])
        if not isfinite(months):
            prediction.error = "the prediction is not finite: the training diverged"
            return
        prediction.months = months
        prediction.std = None if batch.std is None else float(batch.std[k])
        assert prediction.male is not None
        prediction.lower, prediction.upper = self.intervals.interval(
            months, male=prediction.male, std=prediction.std
        )

    def _average_members(self, results: list[PredictionResult]) -> tuple[PredictionBatch, Flags]:
        """Return the mean prediction and the flags of more than half of the members with a detector."""
        pixels = {spec: np.stack([result.pixels[spec] for result in results]) for spec in self.resize_specs}
        male = [bool(result.prediction.male) for result in results]
        sizes = [result.radiograph.image.size for result in results if result.radiograph]
        outputs = [member.predict_batch(pixels[member.resize_spec], male, sizes) for member in self.members]
        votes: dict[str, list[NDArray[np.bool_]]] = {}
        for _, flags in outputs:
            for name, raised in flags.items():
                votes.setdefault(name, []).append(raised)
        flags = {name: np.mean(raised, axis=0) > 0.5 for name, raised in votes.items()}
        return average_predictions([predictions for predictions, _ in outputs]), flags


def _invert(result: PredictionResult) -> PredictionResult:
    """Return the result for the negative image, inverted before padding."""
    assert result.radiograph is not None
    image = ImageOps.invert(result.radiograph.image)
    return replace(result, pixels={spec: spec.apply(image) for spec in result.pixels})
