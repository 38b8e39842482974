"""Predict an evaluation set with checkpoints."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from boneage_pl.data.images.resize import ReadPixels
from boneage_pl.model.inference import BatchPredictor, PredictionBatch, average_predictions
from boneage_pl.prediction.ensemble import TTATransform
from boneage_pl.training.checkpoint import load_for_inference
from boneage_pl.training.runs import shortest_path
from boneage_pl.utils.progress import progress

UNCHANGED = "clean"


@dataclass
class CheckpointPredictions:
    """Predictions of a checkpoint.

    Args:
        by_condition: predictions by condition of the images, `clean` first.
        ids: of the images.
        timing: `checkpoint, images, seconds, images_per_second`.
    """

    by_condition: dict[str, PredictionBatch]
    ids: list[str]
    timing: dict[str, Any]

    def months(self, condition: str = UNCHANGED) -> pd.Series:
        """Return the predictions in months, by id."""
        return pd.Series(self.by_condition[condition].months, self.ids)


def predict_checkpoint(
    path: Path,
    rows: pd.DataFrame,
    conditions: Mapping[str, ReadPixels],
    batch: int,
    trusted_config: Any,
    tta: Sequence[TTATransform] = (),
) -> CheckpointPredictions:
    """Predict every image in each condition with a checkpoint.

    Args:
        path: checkpoint file.
        rows: `id, male`; repeated ids are predicted once.
        conditions: ids → uint8 [B, H, W] in the checkpoint's input size, by name; `clean` first.
        batch: images per batch.
        trusted_config: see `load_for_inference`.
        tta: test-time augmentations, averaged with the unchanged image.

    Raises:
        BoneAgeError: see `load_for_inference`.
    """
    module, checkpoint = load_for_inference(path, trusted_config)
    images = rows.drop_duplicates("id")
    ids, male = images["id"].tolist(), images["male"].tolist()
    parts = [(name, slice(at, at + batch)) for name in conditions for at in range(0, len(ids), batch)]
    predictor = BatchPredictor(module, checkpoint.metadata.precision)
    batches: dict[str, list[PredictionBatch]] = {name: [] for name in conditions}
    start = time.perf_counter()
    for name, part in progress(
        parts, len(parts), f"predicting with {shortest_path(path.resolve())}", "batches"
    ):
        pixels = conditions[name](ids[part])
        views = (pixels, *(np.stack([transform(image) for image in pixels]) for transform in tta))
        batches[name].append(average_predictions([predictor(view, male[part]) for view in views]))
    seconds = time.perf_counter() - start
    count = len(conditions) * len(ids)
    timing = {
        "checkpoint": str(shortest_path(path.resolve())),
        "images": count,
        "seconds": round(seconds, 3),
        "images_per_second": round(count / seconds, 1),
    }
    return CheckpointPredictions({name: _concatenate(parts) for name, parts in batches.items()}, ids, timing)


def _concatenate(parts: list[PredictionBatch]) -> PredictionBatch:
    stds = [part.std for part in parts if part.std is not None]
    months = np.concatenate([part.months for part in parts])
    return PredictionBatch(months, np.concatenate(stds) if stds else None)


def ensemble_mean(members: list[CheckpointPredictions], condition: str = UNCHANGED) -> pd.DataFrame:
    """Return the mean of several checkpoints by id: `months` and, if all have one, `predicted_std`."""
    batch = average_predictions([member.by_condition[condition] for member in members])
    frame = pd.DataFrame({"months": batch.months}, members[0].ids)
    return frame if batch.std is None else frame.assign(predicted_std=batch.std)
