"""Fit a network's out-of-distribution detector when its training ends, and store it in the checkpoint."""

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
MAX_IMAGES = 1500  # training images used, and validation images: more change little
_MIN_IMAGES = 60  # of each; with fewer a limit depends on a single image
_TURNED_IMAGES = 400  # training images used in each turn; 200 did as well
_RIDGE = 100.0  # penalty of the classifier; 10 did as well, 1000 flagged more upright hands
_RANK = 64  # principal components of the features
_BATCH = 32


def fit_ood_detector(
    predictor: BatchPredictor, train: Images, validation: Images, ratios: Sequence[float] = ()
) -> OODDetector | None:
    """Fit the detector to a trained network and its images; `None` if they are too few.

    Args:
        predictor: the network.
        train: images that it was trained on, uint8 [N, H, W].
        validation: others of their kind, uint8 [M, H, W]: they set the limits.
        ratios: `scale_ratio` of the training images' files; empty where they are missing.
    """
    if min(len(train), len(validation)) < _MIN_IMAGES:
        return None
    spectrum, expected = power_spectrum_features(train), power_spectrum_features(validation)
    detector = OODDetector("", None, LowRankGaussian.fit(spectrum, expected, len(BANDS)))
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
    points = orientation_inputs(features, np.concatenate(turned))
    counts = [len(part) for part in turned]
    turns = np.eye(len(turned), dtype=np.float32).repeat(counts, axis=0)
    weighted = points.T * (turns / counts).sum(1, dtype=np.float32) * (sum(counts) / len(counts))
    return np.linalg.solve(
        weighted @ points + _RIDGE * np.eye(len(weighted), dtype=np.float32), weighted @ turns
    )


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


def _sample_ids(checkpoint: Checkpoint) -> tuple[list[str], list[str]]:
    """Return up to `MAX_IMAGES` training and validation ids; one of the same pixels, none of both."""
    split = checkpoint.metadata.split
    content = split.get("pixel_sha256") or split["file_sha256"]
    sides = [{content.get(i, i): i for i in split[side]} for side in ("train", "validation")]
    sides[1] = {key: i for key, i in sides[1].items() if key not in sides[0]}
    train, validation = (list(side.values())[:: -(-len(side) // MAX_IMAGES) or 1] for side in sides)
    return train, validation
