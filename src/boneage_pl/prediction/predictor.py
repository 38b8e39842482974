"""`BoneAgePredictor`: bone ages of radiographs, from one checkpoint or several."""

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
        level: of the intervals, see `ConformalIntervals`.
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
            trusted_config: a configuration of the user's own whose objects a checkpoint may name.

        Raises:
            BoneAgeError: there is no such checkpoint, it cannot be read, or an option cannot be right.
        """
        check_coverage_level(interval_level)
        parse_tta(tta)  # refused before anything is loaded
        names = [ckpt] if isinstance(ckpt, str | PathLike) else list(ckpt)
        paths = find_checkpoints(names, Path(output_dir))
        return cls([EnsembleMember(path, tta, device, trusted_config) for path in paths], interval_level)

    def predict(self, images: ImageInput | Sequence[ImageInput], sex: Any = None) -> list[Prediction]:
        """Return the prediction of each image, or one for each sex where it is unknown.

        That of a file that cannot be read has an `error` instead of months.

        Args:
            images: a file, a folder, a pattern, a table (see `expand_inputs`), a file's bytes, a Pillow image
                or an array of gray values [H, W]; or a list of these.
            sex: `"F"`, `"M"` or `"unknown"`, of all or of each; `None` where the files or a table say.

        Raises:
            BoneAgeError: a name under which there is nothing, or a sex that is none.

        Example:
            >>> girl, boy = model.predict("hand.png", sex="unknown")
            >>> girl.sex, boy.sex, girl.lower <= girl.months <= girl.upper
            ('F', 'M', True)
            >>> array = np.asarray(Image.open("hand.png"))
            >>> [round(one.months) for one in model.predict([array, array], ["F", "M"])] == [
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
            batch: images in a network's batch.
        """
        first = self.members[0].metadata
        coming = iter(requests)
        start = list(islice(coming, 2))
        threads = cores() if len(start) > 1 else 0
        gpu = self.members[0].predictor.device.type != "cpu"
        every = load_images(chain(start, coming), self.resize_specs, first.bit_depths, threads, overlap=gpu)
        while part := list(islice(every, batch)):
            if shown := [result for result in part if not result.prediction.error]:
                self._fill_predictions(shown)
            yield from part

    def _fill_predictions(self, results: list[PredictionResult]) -> None:
        """Predict; an out-of-distribution image whose negative is in-distribution is taken for a negative."""
        batch, flags = self._average_members(results)
        odd = np.flatnonzero(flags.get("out_of_distribution", [])).tolist()
        negatives = [_invert(results[at]) for at in odd]
        found = [(result, batch, flags, at) for at, result in enumerate(results)]
        if negatives:
            of_negatives, their_flags = self._average_members(negatives)
            for k, at in enumerate(odd):
                if not their_flags["out_of_distribution"][k]:
                    results[at].pixels = negatives[k].pixels
                    results[at].prediction.flags.append("inverted")
                    found[at] = (results[at], of_negatives, their_flags, k)
        for result, predicted, raised, at in found:
            result.prediction.flags += [name for name, applies in raised.items() if applies[at]]
            self._fill_prediction(result.prediction, predicted, at)

    def _fill_prediction(self, prediction: Prediction, batch: PredictionBatch, k: int) -> None:
        months = float(batch.months[k])
        if not isfinite(months):
            prediction.error = "the network's prediction is no number: its training diverged"
            return
        prediction.months = months
        prediction.std = None if batch.std is None else float(batch.std[k])
        assert prediction.male is not None
        prediction.lower, prediction.upper = self.intervals.interval(
            months, male=prediction.male, std=prediction.std
        )

    def _average_members(self, results: list[PredictionResult]) -> tuple[PredictionBatch, Flags]:
        """Return the mean prediction, and the flags of more than half of the members that can tell."""
        pixels = {spec: np.stack([result.pixels[spec] for result in results]) for spec in self.resize_specs}
        male = [bool(result.prediction.male) for result in results]
        sizes = [result.radiograph.image.size for result in results if result.radiograph]
        outputs = [member.predict_batch(pixels[member.resize_spec], male, sizes) for member in self.members]
        votes: dict[str, list[NDArray[np.bool_]]] = {}
        for _, flags in outputs:
            for name, raised in flags.items():
                votes.setdefault(name, []).append(raised)
        flags = {name: np.mean(every, axis=0) > 0.5 for name, every in votes.items()}
        return average_predictions([predictions for predictions, _ in outputs]), flags


def _invert(result: PredictionResult) -> PredictionResult:
    """Return the result of the image's negative; it is inverted before it is padded."""
    assert result.radiograph is not None
    image = ImageOps.invert(result.radiograph.image)
    return replace(result, pixels={spec: spec.apply(image) for spec in result.pixels})
