"""Atomic checkpoints and full disks."""

import errno
import os
import resource
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from boneage_pl.training.callbacks.checkpointing import (
    AtomicCheckpointIO,
    checkpoint_bytes,
    warn_if_low_disk_space,
)


def test_equal_state_is_written_once(tmp_path: Path):
    files = AtomicCheckpointIO()
    best, last = tmp_path / "made" / "best.ckpt", tmp_path / "made" / "last.ckpt"
    for epoch, weight in ((0, 1.0), (1, 2.0)):
        state = {"epoch": epoch, "global_step": epoch, "weight": torch.tensor(weight)}
        if epoch == 0:
            files.save_checkpoint(state, best)
        files.save_checkpoint(state, last)
        if epoch == 0:
            assert best.samefile(last)
    assert [torch.load(path)["weight"].item() for path in (best, last)] == [1, 2]
    assert sorted(path.name for path in best.parent.iterdir()) == ["best.ckpt", "last.ckpt", "previous.ckpt"]
    assert (last.parent / "previous.ckpt").samefile(best)


def test_repeated_save_keeps_previous(tmp_path: Path):
    """At the end of a training, failed saves are repeated."""
    files = AtomicCheckpointIO()
    for epoch in (0, 1, 1):
        files.save_checkpoint({"epoch": epoch, "global_step": epoch}, tmp_path / "last.ckpt")
    assert [torch.load(tmp_path / f"{name}.ckpt")["epoch"] for name in ("last", "previous")] == [1, 0]


def test_failed_save_keeps_older_file(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    files = AtomicCheckpointIO()
    path = tmp_path / "last.ckpt"
    files.save_checkpoint({"epoch": 0, "global_step": 0}, path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # as on a full disk
    try:
        files.save_checkpoint({"epoch": 1, "global_step": 1, "weights": torch.ones(100_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files.failed
    assert "last.ckpt could not be saved" in caplog.text
    assert torch.load(path)["epoch"] == 0
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]
    files.save_checkpoint({"epoch": 2, "global_step": 2}, path)
    assert not files.failed
    assert [torch.load(tmp_path / f"{name}.ckpt")["epoch"] for name in ("last", "previous")] == [2, 0]


def test_failed_flush_keeps_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A disk may fail only at the flush."""
    files = AtomicCheckpointIO()
    path = tmp_path / "last.ckpt"
    files.save_checkpoint({"epoch": 0, "global_step": 0}, path)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    files.save_checkpoint({"epoch": 1, "global_step": 1}, path)
    assert files.failed
    assert torch.load(path)["epoch"] == 0
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_low_disk_space_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    network = torch.nn.Linear(1000, 1000)
    state = {"epoch": 0, "global_step": 0, "weights": network.state_dict()}
    state["moments"] = [torch.zeros(2, 1001, 1000)]  # Adam's two, of 1000 × 1000 weights and 1000 biases
    files = AtomicCheckpointIO()
    files.save_checkpoint(state, tmp_path / "last.ckpt")
    needed = checkpoint_bytes(network)
    assert needed == pytest.approx(4 * (tmp_path / "last.ckpt").stat().st_size, rel=0.01)
    for free, warned in ((needed, False), (needed - 1, True)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        warn_if_low_disk_space(network, tmp_path)
        assert ("low disk space: the checkpoints in" in caplog.text) is warned
