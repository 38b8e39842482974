"""Out-of-distribution points are distinguished from new in-distribution points."""

import numpy as np
import pytest
import torch

from boneage_pl.data.transforms.compose import Compose
from boneage_pl.model.inference import BatchPredictor, InferenceModule
from boneage_pl.prediction.mahalanobis import LowRankGaussian, tolerance_limit
from boneage_pl.prediction.ood import OODDetector, power_spectrum_features, scale_ratio
from boneage_pl.prediction.ood_fitting import fit_ood_detector, fit_orientation
from tests.helpers.tiny_models import Ages, Gray


def points(count: int, seed: int) -> np.ndarray:
    """Return points in 40 dimensions with few large variances."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(0).normal(0, 1, (6, 40))
    return (rng.normal(0, 3, (count, 6)) @ mix + rng.normal(0, 0.3, (count, 40)) + 7).astype(np.float32)


@pytest.mark.parametrize("directions", [6, 40, 64])
def test_new_points_are_inside_and_others_outside(directions: int):
    cloud = LowRankGaussian.fit(points(1500, 1), points(1500, 2), directions)
    new = points(4000, 3)
    assert 0.005 < np.mean(cloud.mahalanobis(new) > cloud.limit) < 0.025
    rng = np.random.default_rng(4)
    off = new[:500] + rng.normal(0, 1.5, (500, 40)).astype(
        np.float32
    )  # small, but orthogonal to the large variances
    assert np.mean(cloud.mahalanobis(off) > cloud.limit) > 0.99
    assert np.median(cloud.mahalanobis(new)) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("count", [150, 400, 1500])
def test_limit_lets_97_5_percent_pass_in_19_of_20_fits(count: int):
    limits = np.array([tolerance_limit(np.random.default_rng(k).random(count)) for k in range(2000)])
    assert 0.94 < np.mean(limits >= 0.975) < 0.985  # at least 95 %, and little more, since ranks are discrete
    assert tolerance_limit(np.arange(118.0)) == 117


def test_fit_is_deterministic_and_keeps_rng():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, second = (LowRankGaussian.fit(points(300, 1), points(300, 2), 6) for _ in range(2))
    assert (first.directions == second.directions).all()
    assert (torch.get_rng_state() == before).all()


def detector(orientation: np.ndarray | None = None) -> OODDetector:
    spectra = power_spectrum_features(np.random.default_rng(0).integers(0, 256, (300, 32, 32), np.uint8))
    features = LowRankGaussian.fit(points(300, 1), points(300, 2), 6)
    return OODDetector("layer", features, LowRankGaussian.fit(spectra, spectra, 6), (0.5, 1.0), orientation)


def test_detector_round_trips():
    turns = np.random.default_rng(0).normal(size=(41, 4)).astype(np.float32)
    known = detector(turns)
    kept = known.to_dict()
    read = OODDetector.from_dict(kept)
    assert (read.orientation == turns).all()
    del kept["orientation"]  # of an earlier checkpoint without it
    assert not OODDetector.from_dict(kept).flag_features(points(9, 5))["rotated"].any()
    assert (read.features.mahalanobis(points(9, 5)) == known.features.mahalanobis(points(9, 5))).all()
    assert (read.layer, read.scale_range, read.spectrum.limit) == ("layer", (0.5, 1.0), known.spectrum.limit)


@pytest.mark.parametrize(
    "spoil", ["layer", "spectrum", "orientation", "scale_range", "mean", "scale", "variances", "limit"]
)
def test_invalid_statistics_are_refused(spoil: str):
    kept = detector().to_dict()
    if spoil == "layer":
        del kept[spoil]
    elif spoil in kept:
        kept[spoil] = torch.zeros(3, 4) if spoil == "orientation" else ["x"]
    else:
        kept["features"][spoil] = torch.zeros(40 if spoil == "scale" else 3) if spoil != "limit" else "far"
    with pytest.raises(ValueError, match="damaged"):
        OODDetector.from_dict(kept)


def test_turned_points_are_told():
    """Rotations move features: here, the coordinates by ten."""
    where = np.linspace(0, 40, 40, dtype=np.float32)
    turned = [np.roll(points(300, turns) + where, 10 * turns, axis=1) for turns in range(4)]
    features = LowRankGaussian.fit(turned[0], points(300, 9) + where, 6)
    known = OODDetector("layer", features, features, None, fit_orientation(features, turned))
    new = points(1000, 5) + where
    assert known.flag_features(new)["rotated"].mean() < 0.02
    for turns in (1, 2, 3):
        assert known.flag_features(np.roll(new, 10 * turns, axis=1))["rotated"].mean() > 0.98


def test_degenerate_features_do_not_fail():
    same = LowRankGaussian.fit(np.zeros((300, 40), np.float32), np.zeros((300, 40), np.float32), 64)
    assert (same.mahalanobis(np.zeros((5, 40), np.float32)) <= same.limit).all()
    assert (same.mahalanobis(np.ones((5, 40), np.float32)) > same.limit).all()
    reader = InferenceModule(Gray(), Compose(), Ages([1, 2, 3]))
    torch.nn.init.constant_(reader.network.image[0].weight, float("nan"))
    images = np.random.default_rng(0).integers(0, 256, (80, 64, 64), dtype=np.uint8)
    learned = fit_ood_detector(BatchPredictor(reader, "32-true"), images, images)
    assert learned.features is None
    assert OODDetector.from_dict(learned.to_dict()).features is None


def test_too_few_images_give_no_detector():
    assert fit_ood_detector(None, np.zeros((10, 8, 8), np.uint8), np.zeros((500, 8, 8), np.uint8)) is None


def test_spectrum_measures_sharpness_not_brightness():
    rng = np.random.default_rng(0)
    fine = rng.integers(0, 200, (3, 64, 64), dtype=np.uint8)
    coarse = fine[:, ::4, ::4].repeat(4, 1).repeat(4, 2)
    assert np.abs(power_spectrum_features(fine) - power_spectrum_features(fine // 2)).max() < 0.2
    assert np.abs(power_spectrum_features(fine) - power_spectrum_features(coarse)).max() > 1


def test_scale_ratio_counts_file_pixels():
    assert scale_ratio((100, 130), 128, "crop") == pytest.approx(100 / 128)
    assert scale_ratio((100, 130), 128, "pad") == 1
    assert scale_ratio((1600, 2080), 500, "crop") == 1
