"""Out-of-distribution detection by features, power spectrum and size; and which way is up.

Two distances from the training's images, each with a limit that a given share of the validation's keeps: of
the features that the network itself sees early on (edges, textures, and where they are), and of the power
spectrum (how fine the picture is). And how many pixels its file had for the network's square, since an
enlarged copy cannot be as fine as the original. A linear classifier of the same features, which has seen the
training's images turned, tells a quarter or half turn. Nothing in it knows what a cat is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from math import ceil, inf
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from boneage_pl.data.images.resize import Pixels, ResizeMode
from boneage_pl.errors import BoneAgeError
from boneage_pl.model.feature_maps import FeatureHook, ood_layer
from boneage_pl.model.inference import BatchPredictor
from boneage_pl.utils.progress import progress

# Of the validation's images that each limit lets pass; our choice: both together flag under 5 %.
CALIBRATION_COVERAGE = 0.98
MAX_IMAGES = 1500  # training images that are looked at, and validation images; our choice: more change little
_MIN_IMAGES = 60  # of each; with fewer a limit hangs on one image
_TURNED_IMAGES = 400  # training images that are looked at in each turn; our choice, 200 did as well
_RIDGE = (
    100.0  # of the classifier; our choice: with 10 it did as well, with 1000 it flagged more upright hands
)
_MAX_SCORE = 5.0  # deviations; our choice: no single feature decides which way is up
_RANK = 64  # in which distances are counted in deviations; our choice, see docs/PREDICTION.md
_BANDS = (0.20, 0.25, 0.30, 0.35, 0.40, 0.45, 0.50, 0.60, 0.71)  # cycles a pixel; our choice, measured too
_TOLERANCE = 1.1  # between files' sizes; our choice: a tenth more or fewer pixels is not seen
_MIN_VARIANCE = 1e-6  # of a variance, where points do not differ
_BATCH = 32

Values = NDArray[np.float32]
Images = Sequence[Pixels] | Pixels  # uint8 [N, side, side]
Flags = dict[str, NDArray[np.bool_]]  # [B], by the name of a quality flag


@dataclass
class LowRankGaussian:
    """Where points lie: a mean, the directions in which they spread most, and how far in all others.

    The distance is Mahalanobis' with the small variances replaced by their mean, as probabilistic principal
    components have it (Tipping and Bishop, J R Stat Soc B 1999); features were first used so to tell what a
    network does not know by Lee et al. (NeurIPS 2018).

    Args:
        mean: [D].
        scale: [D], each coordinate's deviation.
        directions: [D, K], orthonormal, of the scaled points.
        variances: [K] along them.
        residual_variance: mean variance in the other directions; 0 where there are none.
        limit: the distance beyond which a point is none of them.
    """

    mean: Values
    scale: Values
    directions: Values
    variances: Values
    residual_variance: float
    limit: float = inf

    @classmethod
    def fit(cls, points: Values, others: Values, directions: int) -> "LowRankGaussian":
        """Describe points [N, D], with the limit that `CALIBRATION_COVERAGE` of `others` [M, D] keep."""
        mean, scale = points.mean(0), points.std(0)
        scale = np.maximum(scale, 1e-4 * scale.max() + 1e-12)
        scaled = torch.from_numpy((points - mean) / scale)
        count = min(directions, points.shape[1], len(points) // 4)
        with torch.random.fork_rng(devices=[]):  # it begins with random directions: always the same
            torch.manual_seed(0)
            _, spread, vectors = torch.svd_lowrank(scaled, q=min(count + 16, *scaled.shape), niter=4)
        variances = (spread[:count] ** 2 / (len(points) - 1)).clamp(min=_MIN_VARIANCE).numpy()
        left = points.shape[1] - count
        total = float(scaled.var(0).sum())
        rest = max((total - float(variances.sum())) / left, _MIN_VARIANCE) if left else 0.0
        cloud = cls(mean, scale, vectors[:, :count].contiguous().numpy(), variances, rest)
        distances = np.sort(cloud.mahalanobis(others))
        rank = ceil((len(distances) + 1) * CALIBRATION_COVERAGE)  # as in `conformal`
        cloud.limit = float(distances[min(rank, len(distances)) - 1])
        return cloud

    def standardize(self, points: Values) -> Values:
        """Return points [N, D] in deviations from the mean."""
        return (points - self.mean) / self.scale

    def mahalanobis(self, points: Values) -> Values:
        """Return how far points [N, D] lie from it: [N]; 1 is usual."""
        scaled = self.standardize(points)
        along = scaled @ self.directions
        square = (along**2 / self.variances).sum(1)
        if self.residual_variance:
            square = square + ((scaled**2).sum(1) - (along**2).sum(1)).clip(0) / self.residual_variance
        return np.sqrt(square / self.mean.size)


@dataclass
class OODDetector:
    """What a model knows of its images.

    Args:
        layer: the module of its network whose output the features are of; nothing where it has no maps.
        features: of the training images as they are and mirrored; `None` where it has no maps.
        spectrum: of the training images.
        scale_range: the least and the most pixels that their files had, see `scale_ratio`; `None` if not
            known.
        orientation: [D + 1, 4], of standardized features and 1, the scores of quarter turns; `None` if not
            known.
    """

    layer: str
    features: LowRankGaussian | None
    spectrum: LowRankGaussian
    scale_range: tuple[float, float] | None = None
    orientation: Values | None = None

    def flag_features(self, points: Values) -> Flags:
        """Return which images are `out_of_distribution` or `rotated` by a quarter or half turn.

        Args:
            points: [B, D], their features.

        Raises:
            BoneAgeError: they are not of the map that was learned from.
        """
        known = self.features
        assert known is not None
        if points.shape[1:] != known.mean.shape:
            raise BoneAgeError(
                f"what the checkpoint knows of its images is of {known.mean.size} features, and its "
                f"network's {self.layer} gives {points.shape[-1]}: it was not made by this project."
            )
        is_ood = ~(known.mahalanobis(points) <= known.limit)  # what is no number is strange
        turns = 0 if self.orientation is None else (_with_bias(known, points) @ self.orientation).argmax(1)
        return {
            "out_of_distribution": is_ood,
            "rotated": np.broadcast_to(np.not_equal(turns, 0), len(points)),
        }

    def matches_resolution(
        self, pixels: Images, sizes: Sequence[tuple[int, int]], fit: ResizeMode
    ) -> NDArray[np.bool_]:
        """Return whether each picture is as fine as the training's were: [B].

        Args:
            pixels: uint8 [B, side, side].
            sizes: of their files, width and height.
            fit: how they were brought into the square.
        """
        fine = self.spectrum.mahalanobis(power_spectrum_features(pixels)) <= self.spectrum.limit
        if self.scale_range:
            least, most = self.scale_range[0] / _TOLERANCE, self.scale_range[1] * _TOLERANCE
            ratios = np.array([scale_ratio(size, pixels[0].shape[-1], fit) for size in sizes])
            fine &= (least <= ratios) & (ratios <= most)
        return fine

    def to_dict(self) -> dict[str, Any]:
        """Return it as a checkpoint keeps it: tensors, numbers and words."""
        return {name: _to_stored(value) for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, values: Any) -> "OODDetector | None":
        """Read what `to_dict` wrote; `None` of nothing.

        Raises:
            ValueError: it is something else.
        """
        if values is None:
            return None
        try:
            features, spectrum = (
                None if values[name] is None else _read_gaussian(values[name])
                for name in ("features", "spectrum")
            )
            scale_range = values["scale_range"] and tuple(float(end) for end in values["scale_range"])
            orientation = values.get("orientation")
            if orientation is not None:
                orientation = orientation.float().numpy()
                if features is None or orientation.shape != (features.mean.size + 1, 4):
                    raise ValueError("its parts do not fit")
            if spectrum is None or (scale_range and len(scale_range) != 2):
                raise ValueError("a part is missing")
            return cls(str(values["layer"]), features, spectrum, scale_range, orientation)
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            raise ValueError(f"what it knows of its images is not what it must be ({error})") from error


def _to_stored(value: Any) -> Any:
    if isinstance(value, LowRankGaussian):
        return {name: _to_stored(part) for name, part in vars(value).items()}
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value))
    return list(value) if isinstance(value, tuple) else value


def _read_gaussian(values: Any) -> LowRankGaussian:
    parts: dict[str, Any] = {
        one.name: float(values[one.name]) if one.type is float else values[one.name].float().numpy()
        for one in fields(LowRankGaussian)
    }
    found = LowRankGaussian(**parts)
    shapes = found.mean.shape == found.scale.shape == found.directions.shape[:1], found.mean.ndim == 1
    if not all(shapes) or found.variances.shape != found.directions.shape[1:]:
        raise ValueError("its parts do not fit")
    if not (found.scale > 0).all() or not (found.variances > 0).all():
        raise ValueError("a deviation is not above 0")
    return found


def scale_ratio(size: tuple[int, int], side: int, fit: ResizeMode) -> float:
    """Return how many of a file's pixels there are for one of the square's, along a line, at most 1."""
    return min((max(size) if fit == "pad" else min(size)) / side, 1.0)


def fit_ood_detector(
    ask: BatchPredictor, train: Images, validation: Images, details: Sequence[float] = ()
) -> OODDetector | None:
    """Return what a trained network knows of its images; `None` if they are too few to say.

    Args:
        ask: the network.
        train: images that it was trained on, uint8 [N, H, W]: what is familiar.
        validation: others of their kind, uint8 [M, H, W]: they set the limits.
        details: of the training images' files, see `scale_ratio`; none where they are not known.
    """
    if min(len(train), len(validation)) < _MIN_IMAGES:
        return None
    spectrum = LowRankGaussian.fit(
        power_spectrum_features(train), power_spectrum_features(validation), len(_BANDS)
    )
    detector = OODDetector("", None, spectrum, (min(details), max(details)) if details else None)
    layer = ood_layer(ask.module.network, train[0].shape[-1])
    if layer is None:
        return detector
    every = _batches(train)
    few = _batches(train[:: -(-len(train) // _TURNED_IMAGES)])
    # a network that was trained on mirrored pictures knows them too
    parts = [every, [batch[:, :, ::-1] for batch in every], _batches(validation)]
    parts += [[np.rot90(batch, turns, (1, 2)) for batch in few] for turns in (1, 2, 3)]
    found = _features_of(ask, layer, parts)
    if not all(np.isfinite(points).all() for points in found):  # its training diverged: it knows nothing
        return detector
    upright = np.concatenate(found[:2])
    detector.layer, detector.features = layer, LowRankGaussian.fit(upright, found[2], _RANK)
    detector.orientation = fit_orientation(detector.features, [upright, *found[3:]])
    return detector


def _batches(images: Images) -> list[Pixels]:
    return [np.asarray(images[at : at + _BATCH]) for at in range(0, len(images), _BATCH)]


def _features_of(ask: BatchPredictor, layer: str, parts: list[list[Pixels]]) -> list[Values]:
    """Return the features [N, D] of each part's batches."""
    batches = [(at, batch) for at, part in enumerate(parts) for batch in part]
    found: list[list[Values]] = [[] for _ in parts]
    with FeatureHook(ask.module.network, layer) as tap:
        for at, batch in progress(batches, len(batches), "fitting out-of-distribution statistics", "batches"):
            ask(np.ascontiguousarray(batch), [False] * len(batch))
            found[at].append(tap.features.numpy())
    return [np.concatenate(part) for part in found]


def fit_orientation(features: LowRankGaussian, turned: list[Values]) -> Values:
    """Return the ridge regression of the turn on features: [D + 1, 4].

    Args:
        features: of upright images.
        turned: [N, D] for each of four turns; each weighs alike.
    """
    points = _with_bias(features, np.concatenate(turned))
    weights = np.concatenate([np.full(len(part), 1 / len(part), np.float32) for part in turned])
    weights /= weights.mean()
    turns = np.eye(len(turned), dtype=np.float32)[np.repeat(np.arange(len(turned)), [len(p) for p in turned])]
    weighted = (points * weights[:, None]).T
    return np.linalg.solve(
        weighted @ points + _RIDGE * np.eye(points.shape[1], dtype=np.float32), weighted @ turns
    )


def _with_bias(features: LowRankGaussian, points: Values) -> Values:
    scores = features.standardize(points).clip(-_MAX_SCORE, _MAX_SCORE)
    return np.concatenate([scores, np.ones((len(points), 1), np.float32)], axis=1)


def power_spectrum_features(images: Images) -> Values:
    """Return the shape of the power spectrum of each image: [N, bands − 1], without its height."""
    bands = np.stack([_band_energies(pixels) for pixels in images])
    return (bands - bands.mean(1, keepdims=True))[:, 1:].astype(np.float32)  # they sum to nothing: one less


def _band_energies(pixels: Pixels) -> Values:
    """Return the logarithm of an image's mean power in each ring of frequencies."""
    window, ring = _frequency_rings(*pixels.shape)
    values = pixels.astype(np.float32)
    power = np.abs(np.fft.rfft2((values - values.mean()) * window)) ** 2
    count = len(_BANDS) + 1
    sums = np.bincount(ring, power.ravel(), count)[1:-1]  # without what lies outside all
    return np.log(sums / np.bincount(ring, minlength=count)[1:-1].clip(1) + 1)


@lru_cache(maxsize=4)
def _frequency_rings(height: int, width: int) -> tuple[Values, NDArray[np.int64]]:
    """Return what an image is faded out with at its edges, and the ring of each of its frequencies."""
    window = np.outer(np.hanning(height), np.hanning(width)).astype(np.float32)
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    return window, np.digitize(radius, _BANDS).ravel()
