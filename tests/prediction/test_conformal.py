"""Intervals hold what they promise, where there are enough images to say so."""

from dataclasses import replace

import numpy as np
import pytest

from boneage_pl.errors import BoneAgeError
from boneage_pl.prediction.conformal import MIN_NEIGHBORS, CalibrationPoint, ConformalIntervals, calibrate
from boneage_pl.training.metadata import CheckpointMetadata
from tests.helpers.fake_checkpoint import record


def known(count: int, seed: int, *, months: tuple[float, float] = (0, 228)) -> list[CalibrationPoint]:
    """Errors that grow with the age, and are twice as large for boys."""
    rng = np.random.default_rng(seed)
    ages, male = rng.uniform(*months, count), rng.random(count) < 0.5
    off = np.abs(rng.normal(0, 1, count)) * (2 + ages / 20) * (1 + male)
    return [CalibrationPoint(bool(m), float(a), float(o)) for m, a, o in zip(male, ages, off, strict=True)]


def covered(intervals: ConformalIntervals, new: list[CalibrationPoint]) -> float:
    return float(np.mean([k.abs_error <= (intervals.half_width(k.predicted, male=k.male) or 0) for k in new]))


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95])
def test_coverage_is_level_for_each_sex_and_age(level: float):
    intervals, new = ConformalIntervals(known(4000, 0), level), known(20_000, 1)
    assert covered(intervals, new) == pytest.approx(level, abs=0.02)
    for male in (False, True):
        assert covered(intervals, [k for k in new if k.male == male]) == pytest.approx(level, abs=0.03)
    for low, high in ((0, 60), (60, 120), (120, 168), (168, 228)):
        part = [k for k in new if low <= k.predicted < high]
        assert covered(intervals, part) == pytest.approx(level, abs=0.04)


def test_quantile_is_conformal():
    images = [
        CalibrationPoint(False, 10.0, float(off)) for off in range(1, 100)
    ]  # 99: ⌈100 · 0.9⌉ is the 90th
    assert ConformalIntervals(images, 0.9).half_width(10, male=False) == 90
    assert ConformalIntervals(images[:19], 0.9).half_width(10, male=False) is None  # too few
    assert ConformalIntervals(images, 0.999).half_width(10, male=False) is None  # none so large is known


def test_small_region_widens():
    girls = [CalibrationPoint(False, 30.0, 5.0)] * MIN_NEIGHBORS
    few_boys = [CalibrationPoint(True, 30.0, 50.0)] * 5
    old = [CalibrationPoint(False, 200.0, 20.0)] * 10
    intervals = ConformalIntervals([*girls, *few_boys, *old], 0.9)
    assert intervals.half_width(30, male=False) == 5
    assert intervals.half_width(30, male=True) == 5  # of the region, where five of 105 are further off
    assert intervals.half_width(200, male=False) == 20  # of all


def validated(
    predicted: list[float], ids: list[str], contents: dict[str, str] | None = None
) -> CheckpointMetadata:
    found = CheckpointMetadata.from_dict(record())
    split = {**found.split, "pixel_sha256": contents or {}, "file_sha256": {i: i for i in ids}}
    count = len(ids)
    validation = {
        "id": ids,
        "male": [False] * count,
        "bone_age": [100.0] * count,
        "predicted": predicted,
    }
    return replace(found, split=split, validation=validation)


def test_image_counts_once():
    ids = [str(i) for i in range(40)]
    once = validated([100.0 + i for i in range(40)], ids)
    twice = validated([100.0 + i for i in range(40)] * 2, ids * 2)
    copies = validated(
        [*(100.0 + i for i in range(40)), 139.0], [*ids, "x"], {"x": "39", **{i: i for i in ids}}
    )
    for one in (twice, copies):
        found = calibrate([one])
        assert found.images == 40
        assert found.half_width(100, male=False) == calibrate([once]).half_width(100, male=False)


def test_ensemble_mean_is_calibrated():
    ids = [str(i) for i in range(40)]
    above, below = validated([110.0] * 40, ids), validated([94.0] * 40, ids)
    assert calibrate([above, below]).half_width(100, male=False) == pytest.approx(2.0)
    others = validated([94.0] * 40, [f"o{i}" for i in range(40)])
    assert calibrate([above, others]).half_width(100, male=False) == pytest.approx(10.0)


def test_diverged_checkpoint_has_no_interval():
    ids = [str(i) for i in range(40)]
    assert calibrate([validated([float("nan")] * 40, ids)]).half_width(100, male=False) is None


@pytest.mark.parametrize("level", [0, 1, 1.5, -0.1, "high", True])
def test_invalid_level_is_refused(level: float):
    with pytest.raises(BoneAgeError, match="level="):
        calibrate([validated([100.0], ["a"])], level)
