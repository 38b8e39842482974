"""Out-of-distribution detection, and which way is up: fitted when a training ends, kept in its checkpoint.

Two distances from the training images, each with a limit set by the validation images: of early features
(edges, textures, and where they are), and of the power spectrum (how fine the image is). And
how many pixels a file had for the network's square, since an enlarged copy cannot be as fine as the original.
A linear classifier of the same features, fitted to turned training images, tells a quarter or half turn.
Nothing in it knows what a cat is.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from math import comb, inf
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from boneage_pl.data.images.decode import FORMATS
from boneage_pl.data.images.resize import Pixels, ReadPixels, ResizeMode
from boneage_pl.errors import BoneAgeError, first_line
from boneage_pl.model.feature_maps import FeatureHook, LayerReached, ood_layer
from boneage_pl.model.inference import BatchPredictor
from boneage_pl.training.checkpoint import Checkpoint, load_for_inference
from boneage_pl.utils.files import atomic_path
from boneage_pl.utils.progress import progress

log = logging.getLogger(__name__)
# All numbers are our choices, see docs/PREDICTION.md.
_COVERAGE = 0.975  # of new images that each limit lets pass: both flag under 5 %
_CONFIDENCE = 0.95  # that it does, however few the validation images are
MAX_IMAGES = 1500  # training images used, and validation images: more change little
_MIN_IMAGES = 60  # of each; with fewer a limit hangs on one image
_TURNED_IMAGES = 400  # training images used in each turn; 200 did as well
_RIDGE = 100.0  # penalty of the classifier; 10 did as well, 1000 flagged more upright hands
_MAX_SCORE = 5.0  # deviations: no single feature decides which way is up
_RANK = 64  # principal components of the features
_BANDS = (0.20, 0.25, 0.30, 0.35, 0.40, 0.45, 0.50, 0.60, 0.71)  # cycles a pixel
_TOLERANCE = 1.1  # of a file's size: a tenth more or fewer pixels is not seen
_MIN_VARIANCE = 1e-6  # of a variance, where points do not differ
_BATCH = 32

Values = NDArray[np.float32]
Images = Sequence[Pixels] | Pixels  # uint8 [N, side, side]
Flags = dict[str, NDArray[np.bool_]]  # [B], by the name of a quality flag


@dataclass
class LowRankGaussian:
    """Probabilistic principal components of standardized points (Tipping and Bishop, J R Stat Soc B 1999).

    A Mahalanobis distance whose small variances are replaced by their mean; of features, it tells what a
    network does not know (Lee et al., NeurIPS 2018).

    Args:
        mean: [D].
        scale: [D], each coordinate's deviation.
        directions: [D, K], orthonormal.
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
    def fit(cls, points: Values, others: Values, rank: int) -> "LowRankGaussian":
        """Fit points [N, D], with the limit that others [M, D] like them, and new ones, keep."""
        mean, scale = points.mean(0), points.std(0)
        scale = np.maximum(scale, 1e-4 * scale.max() + 1e-12)
        scaled = torch.from_numpy((points - mean) / scale)
        rank = min(rank, points.shape[1], len(points) // 4)
        with torch.random.fork_rng(devices=[]):  # it begins with random directions: always the same
            torch.manual_seed(0)
            _, spread, vectors = torch.svd_lowrank(scaled, q=min(rank + 16, *scaled.shape), niter=4)
        variances = (spread[:rank] ** 2 / (len(points) - 1)).clamp(min=_MIN_VARIANCE)
        left = points.shape[1] - rank
        rest = max(float(scaled.var(0).sum() - variances.sum()) / left, _MIN_VARIANCE) if left else 0.0
        found = cls(mean, scale, vectors[:, :rank].contiguous().numpy(), variances.numpy(), rest)
        found.limit = tolerance_limit(found.mahalanobis(others))
        return found

    def standardize(self, points: Values) -> Values:
        """Return points [N, D] in deviations from the mean."""
        return (points - self.mean) / self.scale

    def mahalanobis(self, points: Values) -> Values:
        """Return the distance of points [N, D], [N]; 1 is usual."""
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
        turns = 0 if self.orientation is None else (_with_bias(known, points) @ self.orientation).argmax(1)
        rotated = np.broadcast_to(np.not_equal(turns, 0), len(points))
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


def tolerance_limit(distances: Values) -> float:
    """Return what `_COVERAGE` of new distances stay within, with `_CONFIDENCE`: [M] → a limit.

    One-sided and distribution-free (Wilks, Ann Math Stat 1941): if the share beyond were larger, so few of
    these would hardly be beyond. Of fewer than 119 it is the largest, which promises less.
    """
    count, beyond, probability = len(distances), -1, 0.0
    while probability <= 1 - _CONFIDENCE:  # of so few beyond
        beyond += 1
        probability += comb(count, beyond) * (1 - _COVERAGE) ** beyond * _COVERAGE ** (count - beyond)
    return float(np.sort(distances)[-max(beyond, 1)])


def scale_ratio(size: tuple[int, int], side: int, mode: ResizeMode) -> float:
    """Return how many of a file's pixels there are for one of the square's, along a line, at most 1."""
    return min((max(size) if mode == "pad" else min(size)) / side, 1.0)


def fit_ood_detector(
    predictor: BatchPredictor, train: Images, validation: Images, ratios: Sequence[float] = ()
) -> OODDetector | None:
    """Fit what a trained network knows of its images; `None` if they are too few to say.

    Args:
        predictor: the network.
        train: images that it was trained on, uint8 [N, H, W].
        validation: others of their kind, uint8 [M, H, W]: they set the limits.
        ratios: `scale_ratio` of the training images' files; empty where they are not known.
    """
    if min(len(train), len(validation)) < _MIN_IMAGES:
        return None
    spectrum, expected = power_spectrum_features(train), power_spectrum_features(validation)
    detector = OODDetector("", None, LowRankGaussian.fit(spectrum, expected, len(_BANDS)))
    detector.scale_range = [min(ratios), max(ratios)] if ratios else None
    layer = ood_layer(predictor.module.network, train[0].shape[-1])
    if layer is None:
        return detector
    # mirrored too, as in training; a sample of them in each quarter turn
    few = train[:: -(-len(train) // _TURNED_IMAGES)]
    views = [(train, 0, 1), (train, 0, -1), (validation, 0, 1), *((few, turns, 1) for turns in (1, 2, 3))]
    batches = [(k, at) for k, (images, *_) in enumerate(views) for at in range(0, len(images), _BATCH)]
    found: list[list[Values]] = [[] for _ in views]
    with FeatureHook(predictor.module.network, layer, stop=True) as hook:
        for k, at in progress(batches, len(batches), "fitting out-of-distribution statistics", "batches"):
            images, turns, step = views[k]
            batch = np.rot90(np.asarray(images[at : at + _BATCH]), turns, (1, 2))[:, :, ::step]
            with suppress(LayerReached):
                predictor(np.ascontiguousarray(batch), [False] * len(batch))
            found[k].append(hook.features.numpy())
    plain, mirrored, others, *turned = map(np.concatenate, found)
    turned = [upright := np.concatenate([plain, mirrored]), *turned]
    if all(np.isfinite(points).all() for points in (others, *turned)):  # else its training diverged
        detector.layer, detector.features = layer, LowRankGaussian.fit(upright, others, _RANK)
        detector.orientation = fit_orientation(detector.features, turned)
    return detector


def fit_orientation(features: LowRankGaussian, turned: list[Values]) -> Values:
    """Return the ridge regression of the turn on features: [D + 1, 4].

    Args:
        features: of upright images.
        turned: [N, D] for each of four turns; each weighs alike.
    """
    points = _with_bias(features, np.concatenate(turned))
    counts = [len(part) for part in turned]
    turns = np.eye(len(turned), dtype=np.float32).repeat(counts, axis=0)
    weighted = points.T * (turns / counts).sum(1, dtype=np.float32) * (sum(counts) / len(counts))
    return np.linalg.solve(
        weighted @ points + _RIDGE * np.eye(len(weighted), dtype=np.float32), weighted @ turns
    )


def _with_bias(features: LowRankGaussian, points: Values) -> Values:
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
    count = len(_BANDS) + 1
    sums = np.bincount(ring, power.ravel(), count)[1:-1]  # without what lies outside all
    return np.log(sums / np.bincount(ring, minlength=count)[1:-1].clip(1) + 1)


@lru_cache(maxsize=4)
def _frequency_rings(height: int, width: int) -> tuple[Values, NDArray[np.int64]]:
    """Return what an image is faded out with at its edges, and the ring of each of its frequencies."""
    window = np.outer(np.hanning(height), np.hanning(width)).astype(np.float32)
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    return window, np.digitize(radius, _BANDS).ravel()


def add_ood_statistics(path: Path, read: ReadPixels, paths: Mapping[str, str], config: Any) -> None:
    """Fit a detector for a run's best checkpoint and store it there, unless it has one.

    Args:
        path: of the checkpoint.
        read: ids → its images in its square.
        paths: of the images' files by id, as far as they are known.
        config: of the run, whose objects may be built: they have just been.
    """
    module, checkpoint = load_for_inference(path, config)
    if checkpoint.ood_statistics is not None:
        return
    spec = checkpoint.metadata.resize_spec
    train, validation = _sample_ids(checkpoint)
    ratios = []
    for file in (paths[i] for i in train if i in paths):
        with suppress(Exception), Image.open(file, formats=FORMATS) as image:
            ratios.append(scale_ratio(image.size, spec.size, spec.mode))
    predictor = BatchPredictor(module, checkpoint.metadata.precision)
    detector = fit_ood_detector(predictor, read(train), read(validation), ratios)
    if detector is None:
        return
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    content["ood_statistics"] = detector.to_dict()
    try:
        with atomic_path(path) as beside:
            torch.save(content, beside)
    except (OSError, RuntimeError) as error:  # PyTorch's writer turns what the disk says into the second
        log.warning(
            "%s has no out-of-distribution statistics: it cannot be written (%s)", path, first_line(error)
        )


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


def _sample_ids(checkpoint: Checkpoint) -> tuple[list[str], list[str]]:
    """Return up to `MAX_IMAGES` training and validation ids; one of the same pixels, none of both."""
    split = checkpoint.metadata.split
    content = split.get("pixel_sha256") or split["file_sha256"]
    sides = [{content.get(i, i): i for i in split[side]} for side in ("train", "validation")]
    sides[1] = {key: i for key, i in sides[1].items() if key not in sides[0]}
    train, validation = (list(side.values())[:: -(-len(side) // MAX_IMAGES) or 1] for side in sides)
    return train, validation
