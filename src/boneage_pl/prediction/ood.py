"""Out-of-distribution detection, and which way is up: fitted when a training ends, kept in its checkpoint.

Two distances from the training images, each with a limit set by the validation images: of early features
(edges, textures, and where they are), and of the power spectrum (how fine the image is). And
how many pixels a file had for the network's square, since an enlarged copy cannot be as fine as the original.
A linear classifier of the same features, fitted to turned training images, detects a quarter or half turn.
No other kind of image is modeled.
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
BANDS = (0.20, 0.25, 0.30, 0.35, 0.40, 0.45, 0.50, 0.60, 0.71)  # cycles a pixel
_MAX_SCORE = 5.0  # deviations: no single feature decides which way is up
_TOLERANCE = 1.1  # of a file's size: a tenth more or fewer pixels is not seen

Images = Sequence[Pixels] | Pixels  # uint8 [N, side, side]
Flags = dict[str, NDArray[np.bool_]]  # [B], by the name of a quality flag


@dataclass
class OODDetector:
    """Statistics of the training images, to detect others by.

    Args:
        layer: the network's module whose output the features are of; empty where it has no maps.
        features: of the training images and their mirror images; `None` where it has no maps.
        spectrum: of the training images.
        scale_range: the least and the most `scale_ratio` of their files; `None` if not known.
        orientation: [D + 1, 4], of standardized features and 1, the scores of quarter turns; `None` if not
            known.
    """

    layer: str
    features: LowRankGaussian | None
    spectrum: LowRankGaussian
    scale_range: Sequence[float] | None = None
    orientation: Values | None = None

    def flag_features(self, points: Values) -> Flags:
        """Return which images are `out_of_distribution` or `rotated` by a quarter or half turn.

        Args:
            points: [B, D], their features.

        Raises:
            BoneAgeError: they are not of the map that was fitted.
        """
        known = self.features
        assert known is not None
        if points.shape[1:] != known.mean.shape:
            raise BoneAgeError(
                f"the checkpoint's out-of-distribution statistics are of {known.mean.size} features, and its "
                f"network's {self.layer} gives {points.shape[-1]}: it was not made by this project."
            )
        is_ood = ~(known.mahalanobis(points) <= known.limit)  # also of what is no number
        rotated = np.zeros(len(points), bool)
        if self.orientation is not None:
            rotated = (orientation_inputs(known, points) @ self.orientation).argmax(1) != 0
        return {"out_of_distribution": is_ood, "rotated": rotated}

    def matches_resolution(
        self, pixels: Images, sizes: Sequence[tuple[int, int]], mode: ResizeMode
    ) -> NDArray[np.bool_]:
        """Return whether each image is as fine as the training images were: [B].

        Args:
            pixels: uint8 [B, side, side].
            sizes: of their files, width and height.
            mode: how they were resized.
        """
        fine = self.spectrum.mahalanobis(power_spectrum_features(pixels)) <= self.spectrum.limit
        if self.scale_range:
            ratios = np.array([scale_ratio(size, pixels[0].shape[-1], mode) for size in sizes])
            fine &= (self.scale_range[0] / _TOLERANCE <= ratios) & (
                ratios <= self.scale_range[1] * _TOLERANCE
            )
        return fine

    def to_dict(self) -> dict[str, Any]:
        """Return it as a checkpoint keeps it: tensors, numbers and strings."""

        def stored(value: Any) -> Any:
            return torch.from_numpy(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value

        return asdict(self, dict_factory=lambda items: {name: stored(value) for name, value in items})

    @classmethod
    def from_dict(cls, stored: Any) -> "OODDetector":
        """Read what `to_dict` wrote, and try it.

        Raises:
            ValueError: it is something else.
        """

        def read(value: Any) -> Any:
            if isinstance(value, dict):
                return LowRankGaussian(**{name: read(part) for name, part in value.items()})
            return value.float().numpy() if isinstance(value, Tensor) else value

        try:
            found = cls(**{name: read(value) for name, value in stored.items()})
            black = np.zeros((2, 8, 8), np.uint8)
            found.matches_resolution(black, [(8, 8)] * 2, "pad")
            tried = [(found.spectrum, power_spectrum_features(black))]
            if found.features:
                points = np.zeros((2, found.features.mean.size), np.float32)
                found.flag_features(points)
                tried.append((found.features, points))
            with np.errstate(all="ignore"):
                known = [np.isfinite(one.mahalanobis(points) + one.limit).all() for one, points in tried]
            if not all(known):
                raise ValueError("a distance is no number")
        except (TypeError, AttributeError, IndexError, ValueError) as error:
            raise ValueError(f"its out-of-distribution statistics are damaged ({error})") from error
        return found


def scale_ratio(size: tuple[int, int], side: int, mode: ResizeMode) -> float:
    """Return how many of a file's pixels there are for one of the square's, along a line, at most 1."""
    return min((max(size) if mode == "pad" else min(size)) / side, 1.0)


def orientation_inputs(features: LowRankGaussian, points: Values) -> Values:
    """Return the inputs of the classifier of turns, of points [N, D]: [N, D + 1], clipped, and 1."""
    scores = features.standardize(points).clip(-_MAX_SCORE, _MAX_SCORE)
    return np.pad(scores, ((0, 0), (0, 1)), constant_values=1)


def power_spectrum_features(images: Images) -> Values:
    """Return the shape of the power spectrum of each image: [N, bands − 1], without its height."""
    bands = np.stack([_band_energies(pixels) for pixels in images])
    return (bands - bands.mean(1, keepdims=True))[:, 1:].astype(np.float32)  # they sum to nothing: one less


def _band_energies(pixels: Pixels) -> Values:
    """Return the logarithm of an image's mean power in each ring of frequencies."""
    window, ring = _frequency_rings(*pixels.shape)
    values = pixels.astype(np.float32)
    power = np.abs(np.fft.rfft2((values - values.mean()) * window)) ** 2
    count = len(BANDS) + 1
    sums = np.bincount(ring, power.ravel(), count)[1:-1]  # without what lies outside all
    return np.log(sums / np.bincount(ring, minlength=count)[1:-1].clip(1) + 1)


@lru_cache(maxsize=4)
def _frequency_rings(height: int, width: int) -> tuple[Values, NDArray[np.int64]]:
    """Return what an image is faded out with at its edges, and the ring of each of its frequencies."""
    window = np.outer(np.hanning(height), np.hanning(width)).astype(np.float32)
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    return window, np.digitize(radius, BANDS).ravel()


def load_ood_detector(checkpoint: Checkpoint, predictor: BatchPredictor) -> OODDetector | None:
    """Return a checkpoint's out-of-distribution detector; `None`, with a warning, if it has none.

    Raises:
        BoneAgeError: its statistics cannot be read.
    """
    if checkpoint.ood_statistics is None:
        why = "its training did not end, or had too few images"
        log.warning("%s has no out-of-distribution statistics: %s.", checkpoint.path, why)
        return None
    try:
        detector = OODDetector.from_dict(checkpoint.ood_statistics)
        predictor.module.network.get_submodule(detector.layer)  # there must be one
    except Exception as error:
        raise BoneAgeError(
            f"{checkpoint.path} cannot be read: {first_line(error)}\nDelete it if it is yours."
        ) from error
    return detector
