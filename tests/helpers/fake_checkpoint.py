"""A minimal checkpoint of two epochs."""

from pathlib import Path
from typing import Any

import torch

SPLIT = {
    "protocol": "disjoint",
    "age_bins": 2,
    "samples_per_group": 4,
    "val_fraction": 0.25,
    "seed": 1,
    "edges": [1.0, 114.0, 228.0],
    "train": ["1", "2", "2"],
    "validation": ["3"],
    "file_sha256": {"1": "a", "2": "b", "3": "c"},
    "pixel_sha256": {"1": "A", "2": "B", "3": "C"},
    "inherited_training_images": {"ids": [], "sha256": []},
    "population": {"counts": [1, 0, 1, 1], "medians": {"all": 20.0, "girls": 20.0, "boys": float("nan")}},
}


def record(*maes: float | None) -> dict[str, Any]:
    """Return the metadata of a checkpoint after these epochs."""
    rows = [{"epoch": n, "train_mae": 9.0, "val_mae": mae, "lr": 0.1} for n, mae in enumerate(maes)]
    return {
        "version": "0.1",
        "experiment": "v1",
        "config": {
            "seed": 1,
            "data": {"root": "data", "image_size": 107},
            "model": {"_target_": "boneage_pl.model.inception.InceptionRegressor", "image_size": 107},
            "loss": {"_target_": "torch.nn.L1Loss"},
            "transforms": {"train": {}, "validation": {}},
            "optimizer": {},
            "trainer": {"max_epochs": 2},
        },
        "precision": "32-true",
        "input": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
        "split": {**SPLIT},
        "epoch": max(len(maes) - 1, 0),
        "validation": {"id": ["3"], "male": [1], "bone_age": [30.0], "predicted": [float("inf")]},
        "epochs": rows,
        "start": None,
    }


def write_checkpoint(path: Path, *maes: float | None, **changed: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {"inference.network.age.weight": torch.zeros(1)}
    torch.save({"state_dict": weights, "boneage_pl": {**record(*maes), **changed}}, path)
    return path
