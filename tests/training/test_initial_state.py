"""Initial state of new and resumed runs."""

import os
from pathlib import Path

import pytest

from boneage_pl.training.checkpoint import load_checkpoint
from boneage_pl.training.history import MetricsHistory
from boneage_pl.training.initial_state import latest_checkpoint, restore_best
from boneage_pl.training.runs import BEST, LAST, PREVIOUS
from tests.helpers.fake_checkpoint import write_checkpoint


def restored(run: Path) -> MetricsHistory:
    state = latest_checkpoint(run)
    assert state is not None
    history = MetricsHistory(state.metadata.epochs)
    restore_best(run, state, history)
    return history


def best_of(run: Path) -> list[float]:
    return [row["val_mae"] for row in load_checkpoint(run / BEST).metadata.epochs]


def damage(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-200, os.SEEK_END)
        file.write(bytes(100))


def test_missing_best_is_made_from_last(tmp_path: Path):
    """A leftover temporary file may be a hard link to the copied file."""
    write_checkpoint(tmp_path / LAST, 9.0, 8.0)
    write_checkpoint(tmp_path / BEST, 9.0)
    (tmp_path / "checkpoints" / "best.ckpt.tmp").hardlink_to(tmp_path / LAST)
    restored(tmp_path)
    assert best_of(tmp_path) == [9, 8]
    assert not (tmp_path / BEST).samefile(tmp_path / LAST)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_number_after_nan_is_best(tmp_path: Path):
    write_checkpoint(tmp_path / LAST, float("nan"), 8.0)
    write_checkpoint(tmp_path / BEST, float("nan"))
    restored(tmp_path)
    assert len(best_of(tmp_path)) == 2


def test_damaged_best_is_made_from_previous(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_checkpoint(tmp_path / LAST, 8.0, 9.0)
    write_checkpoint(tmp_path / PREVIOUS, 8.0)
    damage(write_checkpoint(tmp_path / BEST, 8.0))
    history = restored(tmp_path)
    assert best_of(tmp_path) == [8]
    assert history.best is history.rows[0]
    assert "is lost" not in caplog.text
    assert (tmp_path / "checkpoints" / "best.damaged").exists()


def test_unrecoverable_best_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_checkpoint(tmp_path / LAST, 7.0, 9.5, 9.0)
    write_checkpoint(tmp_path / PREVIOUS, 7.0, 9.5)
    damage(write_checkpoint(tmp_path / BEST, 7.0))
    history = restored(tmp_path)
    assert "epoch 0 (validation MAE 7.0000 months) is lost" in caplog.text
    assert history.best is history.rows[2]
    assert len(best_of(tmp_path)) == 3


def test_initial_weights_are_no_epoch(tmp_path: Path):
    """Checkpoints before the first step have the number of the next epoch."""
    write_checkpoint(tmp_path / LAST, 7.0, 9.0)
    write_checkpoint(tmp_path / PREVIOUS)
    history = restored(tmp_path)
    assert history.rows[0]["lost"]
    assert len(best_of(tmp_path)) == 2
