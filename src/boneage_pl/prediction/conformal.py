"""Split-conformal prediction intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf, isfinite
from typing import Any

from boneage_pl.errors import BoneAgeError
from boneage_pl.training.metadata import CheckpointMetadata

AGES = (  # bone age in months below which each ends
    ("under 5 years", 60.0),
    ("5 to 10 years", 120.0),
    ("10 to 14 years", 168.0),
    ("over 14 years", inf),
)
# Images; our choice: of so many, the coverage of 90 % is met to 3 points (Beta's deviation).
MIN_NEIGHBORS = 100
_MIN_POINTS = 20  # below it even 90 % hangs on one or two images


@dataclass(frozen=True)
class CalibrationPoint:
    """One image whose error is known: sex, answer in months, size of the error in months."""

    male: bool
    predicted: float
    abs_error: float


class ConformalIntervals:
    """Split-conformal intervals: symmetric about the answer, as wide as the known errors of its like.

    The score is the absolute residual (Lei et al., J Am Stat Assoc 2018): conformalized quantile regression
    (Romano, Patterson and Candès, NeurIPS 2019) needs a network that was trained to give quantiles, and the
    published one gives one number. So that the width can differ where the errors do, each sex and age region
    is calibrated by itself (Mondrian; Vovk 2012), by the region of the *answer*, which is known for a new
    image too. A region with fewer than `MIN_NEIGHBORS` images of a sex takes both sexes; if these are too
    few, it takes all images. The promise is for new images drawn as those of the validation were; that these
    have also chosen the epoch makes it a little too narrow.

    Args:
        known: the calibration images, each once.
        level: share of new images whose age the interval is to hold, between 0 and 1.
    """

    def __init__(self, known: Sequence[CalibrationPoint], level: float) -> None:
        self.images = len(known)
        self._all = _half_width([k.abs_error for k in known], level) if len(known) >= _MIN_POINTS else None
        self._of: dict[tuple[bool | None, int], float] = {}
        for at in range(len(AGES)):
            for male in (None, False, True):
                offs = [
                    k.abs_error for k in known if _age_region(k.predicted) == at and male in (None, k.male)
                ]
                width = _half_width(offs, level) if len(offs) >= MIN_NEIGHBORS else None
                if width is not None:
                    self._of[male, at] = width

    def half_width(self, months: float, *, male: bool) -> float | None:
        """Return how far the interval of an answer reaches to each side, in months; `None` if not known."""
        at = _age_region(months)
        return self._of.get((male, at), self._of.get((None, at), self._all))

    def table(self) -> list[dict[str, Any]]:
        """Return all of them, `half_width` by `male` and by answers `from` and `until` which months."""
        starts = [0.0, *(until for _, until in AGES)]
        return [
            {
                "male": male,
                "from": start,
                "until": until if isfinite(until) else None,
                "half_width": self.half_width(start, male=male),
            }
            for male in (False, True)
            for start, (_, until) in zip(starts, AGES, strict=False)
        ]


def calibrate(records: Sequence[CheckpointMetadata], level: float = 0.9) -> ConformalIntervals:
    """Return the intervals of a checkpoint's answers, or of the mean of several.

    The mean's errors are those on images that validated each of the checkpoints; where these are too few the
    widths are those of all their errors together (on any image, a mean is off by no more than its members are
    on average).

    Raises:
        BoneAgeError: a level that is none.
    """
    check_coverage_level(level)
    every = [_validation_points(record) for record in records]
    common = set(every[0]).intersection(*every[1:])
    if len(common) >= _MIN_POINTS or len(records) == 1:
        rows = [[validated[content] for validated in every] for content in sorted(common)]
    else:
        rows = [[row] for validated in every for row in validated.values()]
    known = []
    for of_one in rows:
        male, bone_age, _ = of_one[0]
        mean = sum(predicted for _, _, predicted in of_one) / len(of_one)
        if isfinite(mean):
            known.append(CalibrationPoint(male, mean, abs(mean - bone_age)))
    return ConformalIntervals(known, level)


def check_coverage_level(level: float) -> None:
    """Raise `BoneAgeError` for a level that is none."""
    if not isinstance(level, int | float) or not 0.001 <= level < 1:
        raise BoneAgeError(f"interval_level={level}: it must be 0.001 or more, and below 1.")


def _validation_points(record: CheckpointMetadata) -> dict[str, tuple[bool, float, float]]:
    """Return sex, age and answer by what an image shows: a picture under two ids counts once."""
    shown = record.split.get("pixel_sha256") or record.split["file_sha256"]
    answers = record.validation
    rows = zip(answers["id"], answers["male"], answers["bone_age"], answers["predicted"], strict=True)
    return {shown.get(i, i): (bool(male), float(age), float(predicted)) for i, male, age, predicted in rows}


def _age_region(months: float) -> int:
    return next((at for at, (_, until) in enumerate(AGES) if months < until), len(AGES) - 1)


def _half_width(offs: list[float], level: float) -> float | None:
    """Return the conformal quantile of scores: the ⌈(n + 1) · level⌉-th smallest; `None` beyond the last."""
    rank = ceil((len(offs) + 1) * level)
    return sorted(offs)[rank - 1] if rank <= len(offs) else None
