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
AGES = (  # bone age in months below which each ends
    ("under 5 years", 60.0),
    ("5 to 10 years", 120.0),
    ("10 to 14 years", 168.0),
    ("over 14 years", inf),
)
# Images of a group; our choice: of so many, the coverage of 90 % is met to 3 points (Beta's deviation).
MIN_GROUP = 100
_MIN_IMAGES = 20  # in all groups; below it even the quantile of 90 % is that of one or two images
_ENDS = [end for _, end in AGES[:-1]]


class ConformalIntervals:
    """Split-conformal intervals, symmetric about the prediction, calibrated by sex and predicted age.

    The score is the absolute error, divided by the predicted standard deviation where the model has one (Lei
    et al., J Am Stat Assoc 2018). Groups are calibrated by themselves (Mondrian; Vovk 2012), by the
    *predicted* age, which is known for a new image too. They are a partition: a region of ages with too few
    images is merged with the smaller of its neighbors, and is divided by sex where both sexes have enough,
    so that each group holds its share. The promise is for new images drawn as the calibration's were; that
    these have also chosen the epoch makes it a little too narrow.

    Args:
        male: [N], of the calibration images, each once.
        predicted: [N] months.
        errors: [N] months, their sizes.
        std: [N] months, predicted standard deviations; `None` if the model has none.
        level: share of new images whose age the interval is to hold, between 0 and 1.
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
        # (sex, region) → the quantile of its group's errors, and of their ratios to the deviation
        self._quantiles: dict[tuple[bool, int], tuple[float, float | None]] = {}
        least = ceil(level / (1 - level))  # of so many errors one is the quantile
        if self.images < max(_MIN_IMAGES, least):
            return
        region = age_region(predicted)
        counts = np.stack([np.bincount(region[male == sex], minlength=len(AGES)) for sex in (False, True)])
        for sexes, regions in _partition(counts, max(MIN_GROUP, least)):
            group = np.isin(male, sexes) & np.isin(region, regions)
            ratio = None if std is None else _quantile(errors[group] / std[group], level)
            for cell in ((sex, at) for sex in sexes for at in regions):
                self._quantiles[cell] = _quantile(errors[group], level), ratio

    def at_level(self, level: float) -> "ConformalIntervals":
        """Return intervals of another level from the same calibration images."""
        return ConformalIntervals(*self._calibration, level)

    def half_width(self, months: float, *, male: bool, std: float | None = None) -> float | None:
        """Return half the width of a prediction's interval in months; `None` if it is not known.

        Args:
            months: the prediction.
            male: the sex.
            std: its predicted standard deviation; `None` for the width that does not use it.
        """
        error, ratio = self._quantiles.get((male, bisect_right(_ENDS, months)), (None, None))
        return error if std is None or ratio is None else ratio * std

    def interval(
        self, months: float, *, male: bool, std: float | None = None
    ) -> tuple[float | None, float | None]:
        """Return the ends of a prediction's interval in months, at least 0; see `half_width`."""
        width = self.half_width(months, male=male, std=std)
        return (None, None) if width is None else (max(months - width, 0.0), max(months + width, 0.0))

    def table(self) -> list[dict[str, Any]]:
        """Return the widths that do not use a deviation, by sex and predicted age in months."""
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
    """Return the intervals of a checkpoint's predictions, or of the mean of several.

    The calibration images validated every checkpoint and trained none. Where several have too few in common,
    as the folds of a cross-validation do, each one's errors on its own images are taken together: a mean is
    usually better than its members, but nothing is guaranteed then, and a warning says so.

    Raises:
        BoneAgeError: a level that is none.
    """
    check_coverage_level(level)
    every = [_validation_rows(record) for record in records]
    common = sorted(set(every[0]).intersection(*every[1:]))
    if len(common) >= _MIN_IMAGES or len(records) == 1:
        rows = [[validated[content] for content in common] for validated in every]
    else:
        rows = [[row for validated in every for row in validated.values()]]
        log.warning(
            "The checkpoints have %d validation images in common that none of them trained on: the intervals "
            "are those of single checkpoints, and their coverage is not guaranteed.",
            len(common),
        )
    columns = [np.array(member, float).reshape(-1, 4).T for member in rows]
    mean = average_predictions(
        [PredictionBatch(months, None if np.isnan(std).any() else std) for _, _, months, std in columns]
    )
    male, age = columns[0][:2]
    known = np.isfinite(mean.months)  # else its training diverged
    errors = np.abs(mean.months - age)
    std = None if mean.std is None else mean.std[known]
    return ConformalIntervals(male[known] > 0.5, mean.months[known], errors[known], std, level)


def check_coverage_level(level: float) -> None:
    """Raise `BoneAgeError` for a level that is none."""
    if not isinstance(level, int | float) or not 0.001 <= level < 1:
        raise BoneAgeError(f"interval_level={level}: it must be 0.001 or more, and below 1.")


def age_region(months: Any) -> NDArray[np.intp]:
    """Return which of `AGES` bone ages [N] are in: [N]."""
    return np.digitize(np.asarray(months, float), _ENDS)


def _validation_rows(record: CheckpointMetadata) -> dict[str, list[Any]]:
    """Return sex, bone age, prediction and its deviation by what an image shows, if it was not trained on."""
    shown = record.split.get("pixel_sha256") or record.split["file_sha256"]
    trained = {shown.get(i, i) for i in record.split["train"]}
    names = ("id", "male", "bone_age", "predicted", "predicted_std")
    columns = [record.validation.get(name, repeat(None)) for name in names]
    rows = {shown.get(i, i): row for i, *row in zip(*columns, strict=False)}
    return {content: row for content, row in rows.items() if content not in trained}


def _partition(counts: NDArray[np.intp], least: int) -> list[tuple[list[bool], list[int]]]:
    """Return groups of sexes and regions with at least so many images each, if there are as many in all.

    Args:
        counts: [2, regions], images of girls and boys.
        least: images of a group.
    """
    bands = [[region] for region in range(counts.shape[1])]
    while len(bands) > 1:
        sizes = [int(counts[:, band].sum()) for band in bands]
        small = sizes.index(min(sizes))
        if sizes[small] >= least:
            break
        neighbor = min((n for n in (small - 1, small + 1) if 0 <= n < len(bands)), key=sizes.__getitem__)
        first = min(small, neighbor)
        bands[first : first + 2] = [bands[first] + bands[first + 1]]
    divided = [counts[:, band].sum(axis=1).min() >= least for band in bands]
    return [
        (sexes, band)
        for band, by_sex in zip(bands, divided, strict=True)
        for sexes in ([[False], [True]] if by_sex else [[False, True]])
    ]


def _quantile(scores: NDArray[np.floating], level: float) -> float:
    """Return the conformal quantile of scores: the ⌈(n + 1) · level⌉-th smallest."""
    return float(np.sort(scores)[min(ceil((len(scores) + 1) * level), len(scores)) - 1])
