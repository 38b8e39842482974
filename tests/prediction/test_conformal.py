"""Prediction intervals have their nominal coverage if there are enough images."""

import logging
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from boneage_pl.errors import BoneAgeError
from boneage_pl.prediction.conformal import MIN_GROUP, ConformalIntervals, calibrate
from boneage_pl.training.metadata import CheckpointMetadata
from tests.helpers.fake_checkpoint import record


class Images(NamedTuple):
    male: NDArray[np.bool_]
    predicted: NDArray[np.float64]
    errors: NDArray[np.float64]
    std: NDArray[np.float64] | None = None

    def intervals(self, level: float = 0.9) -> ConformalIntervals:
        return ConformalIntervals(*self, level)

    def covered(self, intervals: ConformalIntervals, mask: NDArray[np.bool_] | slice = slice(None)) -> float:
        stds = [None] * len(self.male) if self.std is None else self.std.tolist()
        rows = zip(self.predicted.tolist(), self.male.tolist(), stds, strict=True)
        widths = np.array([intervals.half_width(months, male=male, std=std) for months, male, std in rows])
        return float(np.mean((self.errors <= widths)[mask]))


def images(count: int, seed: int, *, with_std: bool = False) -> Images:
    """Return errors that grow with age and are twice as large for boys; few are boys, few are old."""
    rng = np.random.default_rng(seed)
    predicted, male = 228 * rng.random(count) ** 1.5, rng.random(count) < 0.3
    std = (2 + predicted / 20) * (1 + male) * rng.uniform(0.5, 2, count)
    return Images(male, predicted, np.abs(rng.normal(0, std)), std if with_std else None)


@pytest.mark.parametrize("with_std", [False, True])
@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95])
def test_coverage_is_level_for_each_sex_and_age(level: float, with_std: bool):
    known, new = images(6000, 0, with_std=with_std), images(10_000, 1, with_std=with_std)
    intervals = known.intervals(level)
    assert new.covered(intervals) == pytest.approx(level, abs=0.02)
    for male in (False, True):
        assert new.covered(intervals, new.male == male) == pytest.approx(level, abs=0.03)
    for low, high in ((0, 60), (60, 120), (120, 168), (168, 228)):
        part = (low <= new.predicted) & (new.predicted < high)
        assert new.covered(intervals, part) == pytest.approx(level, abs=0.05)


@pytest.mark.parametrize("with_std", [False, True])
@pytest.mark.parametrize("count", [20, 99, 150, 400, 700, 1500])
def test_calibration_images_are_covered_in_each_group(count: int, with_std: bool):
    """Each image gets the quantile of its own group, however groups are merged."""
    known = images(count, count, with_std=with_std)
    intervals = known.intervals()
    widths = np.array(
        [
            intervals._quantiles[bool(m), int(r)][0]
            for m, r in zip(known.male, np.digitize(known.predicted, [60, 120, 168]), strict=True)
        ]
    )
    for width in np.unique(widths):  # in one group
        assert known.covered(intervals, widths == width) >= 0.9
        assert np.sum(widths == width) >= min(MIN_GROUP, count)
    assert known.covered(intervals) >= 0.9


def test_std_tells_widths_apart():
    known, new = images(4000, 0, with_std=True), images(4000, 1, with_std=True)
    intervals, plain = known.intervals(), known._replace(std=None).intervals()
    rows = list(zip(new.predicted.tolist(), new.male.tolist(), new.std.tolist(), strict=True))
    by_std = np.mean([intervals.half_width(months, male=male, std=std) for months, male, std in rows])
    assert by_std < np.mean([plain.half_width(months, male=male) for months, male, _ in rows])


def few(*parts: tuple[int, bool, float, float]) -> ConformalIntervals:
    counts, male, predicted, errors = zip(*parts, strict=True)
    return Images(*(np.repeat(np.array(part), counts) for part in (male, predicted, errors))).intervals()


def test_quantile_is_conformal():
    known = Images(np.zeros(99, bool), np.full(99, 10.0), np.arange(1.0, 100))
    assert known.intervals().half_width(10, male=False) == 90  # ⌈100 · 0.9⌉
    assert known.intervals(0.999).half_width(10, male=False) is None  # the quantile would be infinite
    assert (
        Images(*(part[:19] for part in known[:3])).intervals().half_width(10, male=False) is None
    )  # too few


def test_small_group_is_merged():
    intervals = few(
        (MIN_GROUP, False, 30, 5), (20, True, 30, 50), (200, False, 200, 20), (200, True, 200, 30)
    )
    assert [intervals.half_width(30, male=male) for male in (False, True)] == [
        50,
        50,
    ]  # 12 of 120 may be outside
    assert [intervals.half_width(200, male=male) for male in (False, True)] == [20, 30]
    old = few((200, False, 30, 5), (200, True, 30, 6), (20, False, 200, 50), (20, True, 200, 50))
    assert [old.half_width(200, male=male) for male in (False, True)] == [
        old.half_width(30, male=m) for m in (False, True)
    ]


def test_ends_are_ordered():
    intervals = few((100, False, 30, 10))
    assert intervals.interval(-30.5, male=False) == (0, 0)
    assert intervals.interval(5, male=False) == (0, 15)
    assert intervals.interval(100, male=False) == (90, 110)


def validated(
    predicted: list[float], ids: list[str], contents: dict[str, str] | None = None, **more: list
) -> CheckpointMetadata:
    found = CheckpointMetadata.from_dict(record())
    split = {**found.split, "pixel_sha256": contents or {i: i for i in ids}, "train": more.pop("train", [])}
    validation = {
        "id": ids,
        "male": [False] * len(ids),
        "bone_age": [100.0] * len(ids),
        "predicted": predicted,
    }
    return replace(found, split=split, validation={**validation, **more})


def test_image_counts_once():
    ids = [str(i) for i in range(40)]
    once = validated([100.0 + i for i in range(40)], ids)
    twice = validated([100.0 + i for i in range(40)] * 2, ids * 2)
    contents = {"x": "39", **{i: i for i in ids}}
    copies = validated([*(100.0 + i for i in range(40)), 139.0], [*ids, "x"], contents)
    for one in (twice, copies):
        found = calibrate([one])
        assert found.images == 40
        assert found.half_width(100, male=False) == calibrate([once]).half_width(100, male=False)


def test_images_that_were_trained_on_do_not_calibrate():
    ids = [str(i) for i in range(40)]
    found = calibrate([validated([101.0] * 20 + [110.0] * 20, ids, train=ids[:20])])
    assert (found.images, found.half_width(100, male=False)) == (20, 10)


def test_ensemble_mean_is_calibrated(caplog: pytest.LogCaptureFixture):
    ids = [str(i) for i in range(40)]
    above = validated([110.0] * 40, ids, predicted_std=[3.0] * 40)
    below = validated([94.0] * 40, ids, predicted_std=[3.0] * 40)
    found = calibrate([above, below])
    assert found.half_width(100, male=False) == pytest.approx(2.0)
    # standard deviations of 3, and means that differ by 8 from their average
    assert found.half_width(100, male=False, std=1.0) == pytest.approx(2 / np.sqrt(3**2 + 8**2))
    assert not caplog.records
    others = validated([94.0] * 40, [f"o{i}" for i in range(40)])
    assert calibrate([above, others]).half_width(100, male=False, std=1.0) == pytest.approx(10.0)
    with caplog.at_level(logging.WARNING):
        calibrate([above, validated([94.0] * 40, ids, train=ids)])
    assert "not guaranteed" in caplog.text


def test_diverged_checkpoint_has_no_interval():
    ids = [str(i) for i in range(40)]
    assert calibrate([validated([float("nan")] * 40, ids)]).half_width(100, male=False) is None


@pytest.mark.parametrize("level", [0, 1, 1.5, -0.1, "high", True])
def test_invalid_level_is_refused(level: float):
    with pytest.raises(BoneAgeError, match="level="):
        calibrate([validated([100.0], ["a"])], level)
