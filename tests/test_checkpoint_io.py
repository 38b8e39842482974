"""Checkpoints on the disk."""

from pathlib import Path

import pytest
import torch

from boneage_pl.checkpoint_io import WholeFiles


def test_one_moment_is_written_once_and_a_later_one_anew(tmp_path: Path):
    files = WholeFiles()
    best, last = tmp_path / "made" / "best.ckpt", tmp_path / "made" / "last.ckpt"
    for epoch, weight in ((0, 1.0), (1, 2.0)):
        state = {"epoch": epoch, "global_step": epoch, "weight": torch.tensor(weight)}
        if epoch == 0:
            files.save_checkpoint(state, best)
        files.save_checkpoint(state, last)
        if epoch == 0:
            assert best.samefile(last)
    assert [torch.load(path)["weight"].item() for path in (best, last)] == [1, 2]
    assert sorted(path.name for path in best.parent.iterdir()) == ["best.ckpt", "last.ckpt"]


def test_what_cannot_be_saved_leaves_the_older_file(tmp_path: Path):
    files = WholeFiles()
    path = tmp_path / "last.ckpt"
    files.save_checkpoint({"epoch": 0, "global_step": 0}, path)
    with pytest.raises(AttributeError):  # a local function cannot be pickled
        files.save_checkpoint({"epoch": 1, "global_step": 1, "bad": lambda: 0}, path)
    assert torch.load(path)["epoch"] == 0
