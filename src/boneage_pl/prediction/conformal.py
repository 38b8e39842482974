"""Split-conformal prediction intervals."""

import logging
from bisect import bisect_right
from collections.abc import Sequence
from itertools import repeat
from math import ceil, inf, isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boneage_pl.errors import BoneAgeError
from boneage_pl.model.inference import PredictionBatch, average_predictions
from boneage_pl.training.metadata import CheckpointMetadata

log = logging.getLogger(__name__)
AGES = (  # age ranges and their upper bounds in months
    ("under 5 years", 60.0),
    ("5 to 10 years", 120.0),
    ("10 to 14 years", 168.0),
    ("over 14 years", inf),
)
# Images per group; our choice: the coverage of 90 % then has a standard deviation of 3 points (Beta).
MIN_GROUP = 100
_MIN_IMAGES = 20  # in total; with fewer, the 90 % quantile depends on one or two images
_ENDS = [end for _, end in AGES[:-1]]


class ConformalIntervals:
    """Split-conformal intervals, symmetric about the prediction, calibrated by sex and predicted age.

    The score is the absolute error, divided by the predicted standard deviation if the model has one (Lei et
    al., J Am Stat Assoc 2018). Groups are calibrated separately (Mondrian; Vovk 2012), by *predicted* age,
    which is available for new images. An age range with too few images is merged with its smaller neighbor,
    and divided by sex if both sexes have enough. Coverage holds for new images from the distribution of the
    calibration images; since these also selected the epoch, intervals are slightly too narrow.

    Args:
        male: [N], sex of the calibration images, without repeats.
        predicted: [N] months.
        errors: [N], absolute errors in months.
        std: [N], predicted standard deviations in months; `None` if the model has none.
        level: nominal coverage, between 0 and 1.
    """

    def __init__(
        self,
        male: NDArray[np.bool_],
        predicted: NDArray[np.floating],
        errors: NDArray[np.floating],
        std: NDArray[np.floating] | None,
        level: float,
    ) -> None:
        self.images = len(male)
        self._calibration = male, predicted, errors, std
        # (sex, age range) → quantile of the group's errors, and of their ratios to the standard deviation
        self._quantiles: dict[tuple[bool, int], tuple[float, float | None]] = {}
        minimum = ceil(level / (1 - level))  # errors needed for a finite quantile
        if self.images < max(_MIN_IMAGES, minimum):
            return
        region = age_region(predicted)
        counts = np.stack([np.bincount(region[male == sex], minlength=len(AGES)) for sex in (False, True)])
        for sexes, regions in _partition(counts, max(MIN_GROUP, minimum)):
            group = np.isin(male, sexes) & np.isin(region, regions)
            ratio = None if std is None else _quantile(errors[group] / std[group], level)
            for cell in ((sex, at) for sex in sexes for at in regions):
                self._quantiles[cell] = _quantile(errors[group], level), ratio

    def at_level(self, level: float) -> "ConformalIntervals":
        """Return intervals of another level with the same calibration."""
        return ConformalIntervals(*self._calibration, level)

    def half_width(self, months: float, *, male: bool, std: float | None = None) -> float | None:
        """Return half the width of a prediction's interval in months; `None` without calibration.

        Args:
            months: the prediction.
            male: the sex.
            std: predicted standard deviation in months; `None` for the width without it.
        """
        error, ratio = self._quantiles.get((male, bisect_right(_ENDS, months)), (None, None))
        return error if std is None or ratio is None else ratio * std

    def interval(
        self, months: float, *, male: bool, std: float | None = None
    ) -> tuple[float | None, float | None]:
        """Return the bounds of a prediction's interval in months, at least 0; see `half_width`."""
        width = self.half_width(months, male=male, std=std)
        return (None, None) if width is None else (max(months - width, 0.0), max(months + width, 0.0))

    def table(self) -> list[dict[str, Any]]:
        """Return the half-widths without standard deviation, by sex and predicted age in months."""
        starts = [0.0, *_ENDS]
        return [
            {
                "male": male,
                "from": start,
                "until": until if isfinite(until) else None,
                "half_width": self.half_width(start, male=male),
            }
            for male in (False, True)
            for start, (_, until) in zip(starts, AGES, strict=True)
        ]


def calibrate(records: Sequence[CheckpointMetadata], level: float = 0.9) -> ConformalIntervals:
    """Calibrate intervals for a checkpoint, or for the mean of several.

    Calibration uses the shared validation images that are no training images. If there are too few, as with
    cross-validation folds, the errors of all checkpoints on their own images are pooled: a mean is usually
    better than its members, but coverage is not guaranteed, and a warning is logged.

    Raises:
        BoneAgeError: an invalid level.
    """
    check_coverage_level(level)
    validations = [_validation_rows(record) for record in records]
    common = sorted(set(validations[0]).intersection(*validations[1:]))
    if len(common) >= _MIN_IMAGES or len(records) == 1:
        rows = [[validated[content] for content in common] for validated in validations]
    else:
        rows = [[row for validated in validations for row in validated.values()]]
        log.warning(
            "The checkpoints share only %d validation images: intervals are calibrated on the errors of "
            "single checkpoints, and their coverage is not guaranteed.",
            len(common),
        )
    columns = [np.array(member, float).reshape(-1, 4).T for member in rows]
    mean = average_predictions(
        [PredictionBatch(months, None if np.isnan(std).any() else std) for _, _, months, std in columns]
    )
    male, age = columns[0][:2]
    finite = np.isfinite(mean.months)  # false if the training diverged
    errors = np.abs(mean.months - age)
    std = None if mean.std is None else mean.std[finite]
    return ConformalIntervals(male[finite] > 0.5, mean.months[finite], errors[finite], std, level)


def check_coverage_level(level: float) -> None:
    """Raise `BoneAgeError` for an invalid level."""
    if not isinstance(level, int | float) or not 0.001 <= level < 1:
        raise BoneAgeError(f"interval_level={level}: it must be at least 0.001 and below 1.")


def age_region(months: Any) -> NDArray[np.intp]:
    """Return the index in `AGES` of bone ages in months: [N] → [N]."""
    return np.digitize(np.asarray(months, float), _ENDS)


def _validation_rows(record: CheckpointMetadata) -> dict[str, list[Any]]:
    """Return sex, bone age, prediction and std of validation images by content, without training images."""
    contents = record.split["pixel_sha256"]
    trained = {contents[i] for i in record.split["train"]}
    names = ("id", "male", "bone_age", "predicted", "predicted_std")
    columns = [record.validation.get(name, repeat(None)) for name in names]
    rows = {contents[i]: row for i, *row in zip(*columns, strict=False)}
    return {content: row for content, row in rows.items() if content not in trained}


def _partition(counts: NDArray[np.intp], minimum: int) -> list[tuple[list[bool], list[int]]]:
    """Partition sexes and age ranges into groups with at least `minimum` images each, if there are enough.

    Args:
        counts: [2, ranges], images of girls and boys.
        minimum: images per group.
    """
    bands = [[region] for region in range(counts.shape[1])]
    while len(bands) > 1:
        sizes = [int(counts[:, band].sum()) for band in bands]
        small = sizes.index(min(sizes))
        if sizes[small] >= minimum:
            break
        neighbor = min((n for n in (small - 1, small + 1) if 0 <= n < len(bands)), key=sizes.__getitem__)
        first = min(small, neighbor)
        bands[first : first + 2] = [bands[first] + bands[first + 1]]
    divided = [counts[:, band].sum(axis=1).min() >= minimum for band in bands]
    return [
        (sexes, band)
        for band, by_sex in zip(bands, divided, strict=True)
        for sexes in ([[False], [True]] if by_sex else [[False, True]])
    ]


def _quantile(scores: NDArray[np.floating], level: float) -> float:
    """Return the conformal quantile of scores: the ⌈(n + 1) · level⌉-th smallest."""
    return float(np.sort(scores)[min(ceil((len(scores) + 1) * level), len(scores)) - 1])
