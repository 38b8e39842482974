import os
from pathlib import Path

import pytest

from boneage_pl.errors import BoneAgeError
from boneage_pl.training.run_dir import diff_configs, is_running, run_dir_lock
from boneage_pl.training.runs import experiment_of, find_checkpoint, newest_run, run_of


def make_run(folder: Path, experiment: str, age: int, best: bool = True) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / ".hydra").mkdir()
    record = f"hydra:\n  runtime:\n    choices:\n      experiment: {experiment}\n"
    (folder / ".hydra" / "hydra.yaml").write_text(record)
    if best:
        ckpt = folder / "checkpoints" / "best.ckpt"
        ckpt.write_bytes(b"x")
        os.utime(ckpt, (1000 - age, 1000 - age))
    return folder


def test_checkpoint_is_found_by_path_folder_or_experiment(tmp_path: Path):
    make_run(tmp_path / "v1" / "old", "v1", age=2)
    new = make_run(tmp_path / "here", "v1", age=1)  # in any folder
    make_run(tmp_path / "v1" / "broken", "v1", age=0, best=False)
    make_run(tmp_path / "v2" / "newer", "v2", age=0)
    best = new / "checkpoints" / "best.ckpt"
    assert newest_run(tmp_path, "v1") == new
    assert find_checkpoint("v1", tmp_path) == best
    assert find_checkpoint(str(new), tmp_path) == best
    assert find_checkpoint(str(best), tmp_path) == best
    assert experiment_of(tmp_path) is None


def test_finished_run_goes_before_newer_one(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    for age in (3, 2, 1):
        run = make_run(tmp_path / "v1" / str(age), "v1", age=age)
        if age > 1:
            (run / "report").mkdir()
            (run / "report" / "summary.json").touch()
    assert newest_run(tmp_path, "v1") == tmp_path / "v1" / "2"
    assert "v1/1, is unfinished" in caplog.text


def test_asking_whether_a_run_is_running_leaves_it_alone(tmp_path: Path):
    assert not is_running(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with run_dir_lock(tmp_path):
        assert is_running(tmp_path)


def test_missing_run_error_lists_existing(tmp_path: Path):
    with pytest.raises(BoneAgeError, match=r"ckpt=v1: no such file or run folder.*\nNo run under"):
        find_checkpoint("v1", tmp_path)
    run = make_run(tmp_path / "v2" / "a", "v2", age=0)
    with pytest.raises(BoneAgeError, match=f"with a best.ckpt: {run}"):
        find_checkpoint("v1", tmp_path)
    empty = make_run(tmp_path / "v1" / "b", "v1", age=0, best=False)
    with pytest.raises(BoneAgeError, match="the folder has no"):
        find_checkpoint(str(empty), tmp_path)


def test_checkpoint_at_root_has_folder():
    assert run_of(Path("/best.ckpt")) == Path("/")
    assert run_of(Path("/runs/a/checkpoints/best.ckpt")) == Path("/runs/a")


def test_empty_name_is_refused(tmp_path: Path):
    """As with an empty shell variable."""
    with pytest.raises(BoneAgeError, match=r"^ckpt=: the folder has no"):
        find_checkpoint("", tmp_path)


def test_places_and_loggers_are_no_other_experiment():
    one = {
        "seed": 1,
        "output_dir": "a",
        "logger": {"csv": {"save_dir": "a/x"}},
        "trainer": {"strategy": "auto"},
    }
    other = {"seed": 2, "output_dir": "b", "logger": {}, "trainer": {"strategy": {"_target_": "DDP"}}}
    assert diff_configs(one, other) == ["seed"]
