"""Bit-exact comparison of two runs."""

from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def scalars_of(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Return TensorBoard's points, without the speed."""
    events = EventAccumulator(str(run))
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag != "training/images_per_second"]
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags}


def differing(run: Path, whole: Path) -> list[str]:
    """Return differences of two finished runs: files, weights, optimizer state, TensorBoard points."""
    found = [
        name
        for name in ("metrics.csv", "split.csv", "report/predictions.csv", "report/summary.json")
        if (run / name).read_bytes() != (whole / name).read_bytes()
    ]
    for name in ("best", "last"):
        ours, theirs = (
            torch.load(r / "checkpoints" / f"{name}.ckpt", weights_only=True) for r in (run, whole)
        )
        parts = ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step")
        found += [f"{name}: {part}" for part in parts if not _equal(ours[part], theirs[part])]
    if scalars_of(run) != scalars_of(whole):
        found.append("TensorBoard's scalars")
    return found


def _equal(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return one == other
