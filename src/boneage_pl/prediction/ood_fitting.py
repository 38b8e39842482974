"""Fit the out-of-distribution detector at the end of a training and store it in the checkpoint."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from boneage_pl.data.images.decode import FORMATS
from boneage_pl.data.images.resize import ReadPixels
from boneage_pl.errors import first_line
from boneage_pl.model.feature_maps import FeatureHook, LayerReached, ood_layer
from boneage_pl.model.inference import BatchPredictor
from boneage_pl.prediction.mahalanobis import LowRankGaussian, Values
from boneage_pl.prediction.ood import (
    BANDS,
    Images,
    OODDetector,
    orientation_inputs,
    power_spectrum_features,
    scale_ratio,
)
from boneage_pl.training.checkpoint import Checkpoint, load_for_inference
from boneage_pl.utils.files import atomic_path
from boneage_pl.utils.progress import progress

log = logging.getLogger(__name__)
# All numbers are our choices, see docs/PREDICTION.md.
MAX_IMAGES = 1500  # training and validation images used; more change little
_MIN_IMAGES = 60  # of each; with fewer, a limit depends on a single image
_ROTATED_IMAGES = 400  # training images used per rotation; 200 did as well
_RIDGE = 100.0  # ridge penalty of the classifier; 10 did as well, 1000 flagged more upright hands
_RANK = 64  # principal components of the features
_BATCH = 32


def fit_ood_detector(
    predictor: BatchPredictor, train: Images, validation: Images, ratios: Sequence[float] = ()
) -> OODDetector | None:
    """Fit the detector of a trained network; `None` with too few images.

    Args:
        predictor: the network.
        train: training images, uint8 [N, H, W].
        validation: validation images, uint8 [M, H, W], which set the limits.
        ratios: `scale_ratio` of the training images' files; empty if they are missing.
    """
    if min(len(train), len(validation)) < _MIN_IMAGES:
        return None
    spectrum, validation_spectrum = power_spectrum_features(train), power_spectrum_features(validation)
    detector = OODDetector("", None, LowRankGaussian.fit(spectrum, validation_spectrum, len(BANDS)))
    detector.scale_range = [min(ratios), max(ratios)] if ratios else None
    layer = ood_layer(predictor.module.network, train[0].shape[-1])
    if layer is None:
        return detector
    # mirrored too, as in training; a sample of them rotated by 90°, 180° and 270°
    sample = train[:: -(-len(train) // _ROTATED_IMAGES)]
    views = [(train, 0, 1), (train, 0, -1), (validation, 0, 1), *((sample, turns, 1) for turns in (1, 2, 3))]
    batches = [(k, at) for k, (images, *_) in enumerate(views) for at in range(0, len(images), _BATCH)]
    features: list[list[Values]] = [[] for _ in views]
    with FeatureHook(predictor.module.network, layer, stop=True) as hook:
        for k, at in progress(batches, len(batches), "fitting out-of-distribution statistics", "batches"):
            images, turns, step = views[k]
            batch = np.rot90(np.asarray(images[at : at + _BATCH]), turns, (1, 2))[:, :, ::step]
            with suppress(LayerReached):
                predictor(np.ascontiguousarray(batch), [False] * len(batch))
            features[k].append(hook.features.numpy())
    plain, mirrored, others, *rotated = map(np.concatenate, features)
    rotated = [upright := np.concatenate([plain, mirrored]), *rotated]
    if all(np.isfinite(points).all() for points in (others, *rotated)):  # false if the training diverged
        detector.layer, detector.features = layer, LowRankGaussian.fit(upright, others, _RANK)
        detector.orientation = fit_orientation(detector.features, rotated)
    return detector


def fit_orientation(features: LowRankGaussian, rotated: list[Values]) -> Values:
    """Return the weights of a ridge regression from features to the four orientations: [D + 1, 4].

    Args:
        features: fitted to upright images.
        rotated: [N, D] for each of the four orientations, weighted equally.
    """
    points = orientation_inputs(features, np.concatenate(rotated))
    counts = [len(part) for part in rotated]
    turns = np.eye(len(rotated), dtype=np.float32).repeat(counts, axis=0)
    weighted = points.T * (turns / counts).sum(1, dtype=np.float32) * (sum(counts) / len(counts))
    return np.linalg.solve(
        weighted @ points + _RIDGE * np.eye(len(weighted), dtype=np.float32), weighted @ turns
    )


def add_ood_statistics(path: Path, read: ReadPixels, paths: Mapping[str, str], config: Any) -> None:
    """Fit a detector for a run's best checkpoint and store it there, unless it has one.

    Args:
        path: checkpoint file.
        read: ids → preprocessed images, uint8 [B, H, W].
        paths: image files by id, as far as known.
        config: the run's configuration, which is trusted.
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
    except (OSError, RuntimeError) as error:  # PyTorch's writer raises the second
        log.warning("out-of-distribution statistics could not be saved to %s (%s)", path, first_line(error))


def _sample_ids(checkpoint: Checkpoint) -> tuple[list[str], list[str]]:
    """Return up to `MAX_IMAGES` training and validation ids, without repeated or shared images."""
    split = checkpoint.metadata.split
    content = split["pixel_sha256"]
    sides = [{content[i]: i for i in split[side]} for side in ("train", "validation")]
    sides[1] = {key: i for key, i in sides[1].items() if key not in sides[0]}
    train, validation = (list(side.values())[:: -(-len(side) // MAX_IMAGES) or 1] for side in sides)
    return train, validation
