"""Run checkpoints over an evaluation set."""

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
    """One checkpoint's.

    Args:
        by_condition: by way that the pictures were shown, `clean` first.
        ids: of the pictures.
        timing: `checkpoint, images, seconds, images_per_second`.
    """

    by_condition: dict[str, PredictionBatch]
    ids: list[str]
    timing: dict[str, Any]

    def months(self, way: str = UNCHANGED) -> pd.Series:
        """Return the months, by id."""
        return pd.Series(self.by_condition[way].months, self.ids)


def predict_checkpoint(
    path: Path,
    rows: pd.DataFrame,
    ways: Mapping[str, ReadPixels],
    batch: int,
    repeated: Any,
    views: Sequence[TTATransform] = (),
) -> CheckpointPredictions:
    """Ask a checkpoint about every image, as each way shows it.

    Args:
        path: of the checkpoint.
        rows: `id, male`; repeated ids are predicted once.
        ways: by name, ids → uint8 [B, H, W] in the checkpoint's square; `clean` first.
        batch: images per batch.
        repeated: see `load_for_inference`.
        views: in which each picture is looked at too; the answers are averaged.

    Raises:
        BoneAgeError: see `load_for_inference`.
    """
    module, checkpoint = load_for_inference(path, repeated)
    once = rows.drop_duplicates("id")
    ids, male = once["id"].tolist(), once["male"].tolist()
    looks: list[TTATransform | None] = [None, *views]
    parts = [(way, slice(at, at + batch)) for way in ways for at in range(0, len(ids), batch)]
    inference = BatchPredictor(module, checkpoint.metadata.precision)
    batches: dict[str, list[PredictionBatch]] = {way: [] for way in ways}
    start = time.perf_counter()
    for way, part in progress(parts, len(parts), f"asking {shortest_path(path.resolve())}", "batches"):
        pixels = ways[way](ids[part])
        shown = (np.stack([look(one) for one in pixels]) if look else pixels for look in looks)
        batches[way].append(average_predictions([inference(one, male[part]) for one in shown]))
    seconds = time.perf_counter() - start
    count = len(ways) * len(ids)
    timing = {
        "checkpoint": str(path),
        "images": count,
        "seconds": round(seconds, 3),
        "images_per_second": round(count / seconds, 1),
    }
    return CheckpointPredictions({way: _concatenate(every) for way, every in batches.items()}, ids, timing)


def _concatenate(parts: list[PredictionBatch]) -> PredictionBatch:
    """Return the answers about several batches as one."""
    spreads = [part.std for part in parts if part.std is not None]
    months = np.concatenate([part.months for part in parts])
    return PredictionBatch(months, np.concatenate(spreads) if spreads else None)


def ensemble_mean(every: list[CheckpointPredictions], way: str = UNCHANGED) -> pd.DataFrame:
    """Return what several checkpoints say together, `months` and, where all have one, `spread`, by id."""
    batches = average_predictions([one.by_condition[way] for one in every])
    frame = pd.DataFrame({"months": batches.months}, every[0].ids)
    return frame if batches.std is None else frame.assign(predicted_std=batches.std)
