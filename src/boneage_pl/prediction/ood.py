"""Out-of-distribution and orientation detection, fitted at the end of a training, stored in its checkpoint.

Two Mahalanobis distances from the training images, with limits set by the validation images: of early
features (edges, textures and their positions) and of the power spectrum (sharpness). In addition, the ratio
of the file's size to the network's input, since an enlarged copy cannot be as sharp as the original. A linear
classifier of the same features, fitted to rotated training images, detects rotations by 90° and 180°. No
other kind of image is modeled.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from boneage_pl.data.images.resize import Pixels, ResizeMode
from boneage_pl.errors import BoneAgeError, first_line
from boneage_pl.model.inference import BatchPredictor
from boneage_pl.prediction.mahalanobis import LowRankGaussian, Values
from boneage_pl.training.checkpoint import Checkpoint

log = logging.getLogger(__name__)
# All numbers are our choices, see docs/PREDICTION.md.
BANDS = (0.20, 0.25, 0.30, 0.35, 0.40, 0.45, 0.50, 0.60, 0.71)  # cycles per pixel
_MAX_SCORE = 5.0  # standard deviations: clips features, so that no single one decides the orientation
_TOLERANCE = 1.1  # for the scale ratio: 10 % are not visible

Images = Sequence[Pixels] | Pixels  # uint8 [N, side, side]
Flags = dict[str, NDArray[np.bool_]]  # [B], by quality flag


@dataclass
class OODDetector:
    """Statistics of the training images for out-of-distribution detection.

    Args:
        layer: module of the network whose output are the features; empty for a network without feature maps.
        features: of the training images and their mirror images; `None` without feature maps.
        spectrum: of the training images.
        scale_range: smallest and largest `scale_ratio` of their files; `None` if unknown.
        orientation: [D + 1, 4], weights of the linear orientation classifier for standardized features and a
            constant 1; `None` if unknown.
    """

    layer: str
    features: LowRankGaussian | None
    spectrum: LowRankGaussian
    scale_range: Sequence[float] | None = None
    orientation: Values | None = None

    def flag_features(self, points: Values) -> Flags:
        """Return which images are `out_of_distribution` or `rotated` by 90° or 180°.

        Args:
            points: [B, D], features.

        Raises:
            BoneAgeError: the number of features differs from the fitted one.
        """
        fitted = self.features
        assert fitted is not None
        if points.shape[1:] != fitted.mean.shape:
            raise BoneAgeError(
                f"the checkpoint's out-of-distribution statistics have {fitted.mean.size} features, but "
                f"{self.layer} of its network has {points.shape[-1]}: it was not written by this project."
            )
        is_ood = ~(fitted.mahalanobis(points) <= fitted.limit)  # true for NaN
        rotated = np.zeros(len(points), bool)
        if self.orientation is not None:
            rotated = (orientation_inputs(fitted, points) @ self.orientation).argmax(1) != 0
        return {"out_of_distribution": is_ood, "rotated": rotated}

    def matches_resolution(
        self, pixels: Images, sizes: Sequence[tuple[int, int]], mode: ResizeMode
    ) -> NDArray[np.bool_]:
        """Return whether the sharpness of each image matches the training images: [B].

        Args:
            pixels: uint8 [B, side, side].
            sizes: width and height of the original images.
            mode: resize mode.
        """
        matches = self.spectrum.mahalanobis(power_spectrum_features(pixels)) <= self.spectrum.limit
        if self.scale_range:
            ratios = np.array([scale_ratio(size, pixels[0].shape[-1], mode) for size in sizes])
            matches &= (self.scale_range[0] / _TOLERANCE <= ratios) & (
                ratios <= self.scale_range[1] * _TOLERANCE
            )
        return matches

    def to_dict(self) -> dict[str, Any]:
        """Return the statistics for a checkpoint: tensors, numbers and strings."""

        def stored(value: Any) -> Any:
            return torch.from_numpy(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value

        return asdict(self, dict_factory=lambda items: {name: stored(value) for name, value in items})

    @classmethod
    def from_dict(cls, stored: Any) -> "OODDetector":
        """Read and check statistics from `to_dict`.

        Raises:
            ValueError: damaged statistics.
        """

        def read(value: Any) -> Any:
            if isinstance(value, dict):
                return LowRankGaussian(**{name: read(part) for name, part in value.items()})
            return value.float().numpy() if isinstance(value, Tensor) else value

        try:
            detector = cls(**{name: read(value) for name, value in stored.items()})
            black = np.zeros((2, 8, 8), np.uint8)
            detector.matches_resolution(black, [(8, 8)] * 2, "pad")
            checks = [(detector.spectrum, power_spectrum_features(black))]
            if detector.features:
                points = np.zeros((2, detector.features.mean.size), np.float32)
                detector.flag_features(points)
                checks.append((detector.features, points))
            with np.errstate(all="ignore"):
                finite = [np.isfinite(fit.mahalanobis(points) + fit.limit).all() for fit, points in checks]
            if not all(finite):
                raise ValueError("a distance is not finite")
        except (TypeError, AttributeError, IndexError, ValueError) as error:
            raise ValueError(f"its out-of-distribution statistics are damaged ({error})") from error
        return detector


def scale_ratio(size: tuple[int, int], side: int, mode: ResizeMode) -> float:
    """Return the ratio of a file's side to the network's input, at most 1."""
    return min((max(size) if mode == "pad" else min(size)) / side, 1.0)


def orientation_inputs(features: LowRankGaussian, points: Values) -> Values:
    """Return the orientation classifier's inputs, clipped features and 1: [N, D] → [N, D + 1]."""
    scores = features.standardize(points).clip(-_MAX_SCORE, _MAX_SCORE)
    return np.pad(scores, ((0, 0), (0, 1)), constant_values=1)


def power_spectrum_features(images: Images) -> Values:
    """Return the log power spectrum of each image without its mean: [N, bands − 1]."""
    bands = np.stack([_band_energies(pixels) for pixels in images])
    return (bands - bands.mean(1, keepdims=True))[:, 1:].astype(
        np.float32
    )  # the sum is 0, so one is redundant


def _band_energies(pixels: Pixels) -> Values:
    """Return the logarithm of an image's mean power in each frequency band."""
    window, ring = _frequency_rings(*pixels.shape)
    values = pixels.astype(np.float32)
    power = np.abs(np.fft.rfft2((values - values.mean()) * window)) ** 2
    count = len(BANDS) + 1
    sums = np.bincount(ring, power.ravel(), count)[1:-1]  # without frequencies outside the bands
    return np.log(sums / np.bincount(ring, minlength=count)[1:-1].clip(1) + 1)


@lru_cache(maxsize=4)
def _frequency_rings(height: int, width: int) -> tuple[Values, NDArray[np.int64]]:
    """Return the window (Hann) and the band index of each frequency."""
    window = np.outer(np.hanning(height), np.hanning(width)).astype(np.float32)
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    return window, np.digitize(radius, BANDS).ravel()


def load_ood_detector(checkpoint: Checkpoint, predictor: BatchPredictor) -> OODDetector | None:
    """Return a checkpoint's out-of-distribution detector; `None`, with a warning, if it has none.

    Raises:
        BoneAgeError: damaged statistics.
    """
    if checkpoint.ood_statistics is None:
        log.warning(
            "%s has no out-of-distribution statistics (training unfinished or too few images).",
            checkpoint.path,
        )
        return None
    try:
        detector = OODDetector.from_dict(checkpoint.ood_statistics)
        predictor.module.network.get_submodule(detector.layer)  # must exist
    except Exception as error:
        raise BoneAgeError(
            f"{checkpoint.path} cannot be read: {first_line(error)}\nDelete it if it is yours."
        ) from error
    return detector
