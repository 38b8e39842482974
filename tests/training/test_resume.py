"""A resumed run equals the uninterrupted run."""

import json
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.conftest import SMALL_PHANTOM, Result, run_command
from tests.helpers.compare_runs import differing
from tests.helpers.fork_server import CHECKOUT, Forks

OWN = "model._target_=tests.helpers.tiny_models.Tiny"
TINY = [*SMALL_PHANTOM, "data.batch_size=8", "trainer.max_epochs=6", "optimizer.lr=0.001", OWN]
STEPS = 8  # an epoch
V2 = ["+experiment=v2", "ckpt=outputs/v1", "scheduler.patience=0", "+scheduler.threshold=0.5"]

MODERN = [
    "+experiment=v1",
    "transforms=augmented",
    "loss=huber",
    "optimizer=adamw",
    "scheduler=cosine",
    "trainer.gradient_clip_val=1",
    "sampler=all_images",
]


class Home:
    """A folder for runs, and the fork server."""

    def __init__(self, path: Path, forks: Forks) -> None:
        self.path = path
        self.outputs = path / "outputs"
        self.forks = forks

    def run(self, *arguments: str, check: bool = True) -> Result:
        return self.forks.run(*arguments, cwd=self.path, check=check)

    def cut_off(self, *arguments: str, step: int, by: str = "kill") -> Result:
        """Start or resume a run, and send it a signal before training step `step`."""
        plan = json.dumps([("step", step, by)])
        return self.forks.start("boneage_pl", *arguments, cwd=self.path, FAULT_PLAN=plan).wait()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Home:
    return Home(tmp_path_factory.mktemp("home"), forks)


@pytest.fixture(scope="module")
def v1(home: Home) -> Path:
    """Return an uninterrupted run."""
    home.run("+experiment=v1", *TINY, "hydra.run.dir=outputs/v1")
    return home.outputs / "v1"


@pytest.fixture(scope="module")
def v2(home: Home, v1: Path) -> Path:
    assert v1.exists()
    home.run(*V2, *TINY, "hydra.run.dir=outputs/v2")
    return home.outputs / "v2"


def test_resume_after_kills_equals_uninterrupted_run(home: Home, v1: Path):
    fresh = ["+experiment=v1", *TINY, "hydra.run.dir=outputs/killed"]
    home.cut_off(*fresh, step=2)
    home.cut_off("resume=latest", OWN, step=3 * STEPS + 2)
    result = home.run("resume=latest", OWN)
    assert "resuming outputs/killed after 3 of 6 epochs" in result.stdout
    assert differing(home.outputs / "killed", v1) == []
    typed = json.loads((home.outputs / "killed" / "run.json").read_text())["sessions"][-1]["command"]
    assert "resume=outputs/killed" in typed  # local paths differ
    assert (home.outputs / "killed" / "boneage_pl.log").read_text().count("v1: data/phantom") == 3
    assert "not bit-identical" not in result.stdout


@pytest.mark.slow
def test_resume_warns_of_other_threads(home: Home):
    """The number of threads changes the order of sums, and so the rounding."""
    run = "outputs/threads"
    home.run("+experiment=v1", *TINY, "trainer.max_epochs=1", f"hydra.run.dir={run}")
    before = torch.get_num_threads()
    other = 1 if before > 1 else 2
    env = {"OMP_NUM_THREADS": str(other), "PYTHONPATH": str(CHECKOUT)}
    more = [f"resume={run}", "trainer.max_epochs=2", OWN]
    stdout = run_command(*more, cwd=home.path, **env).stdout
    assert f"resuming with threads {other} (previously threads {before}): not" in stdout
    sessions = json.loads((home.path / run / "run.json").read_text())["sessions"]
    assert [session["hardware"]["threads"] for session in sessions] == [before, other]


def test_resume_keeps_lowered_rate(home: Home, v2: Path):
    rates = {line.split(",")[3] for line in (v2 / "metrics.csv").read_text().splitlines()[1:]}
    assert len(rates) > 2  # reduced more than once
    home.cut_off(*V2, *TINY, "hydra.run.dir=outputs/cut2", step=3 * STEPS + 2)
    (home.outputs / "v1" / "checkpoints").rename(
        home.path / "gone"
    )  # the warm start's checkpoint is no longer needed
    try:
        home.run("resume=outputs/cut2", OWN)
    finally:
        (home.path / "gone").rename(home.outputs / "v1" / "checkpoints")
    assert differing(home.outputs / "cut2", v2) == []
    assert json.loads((v2 / "report" / "summary.json").read_text())["start"]["experiment"] == "v1"


def test_resume_keeps_schedule_and_augmentation(home: Home):
    modern = [*MODERN, *TINY, "trainer.max_epochs=3"]
    home.run(*modern, "hydra.run.dir=outputs/modern")
    home.cut_off(*modern, "hydra.run.dir=outputs/cut3", step=STEPS + 2)
    home.cut_off("resume=latest", OWN, step=STEPS + 2, by="term")
    home.run("resume=outputs/cut3", OWN)
    assert differing(home.outputs / "cut3", home.outputs / "modern") == []
    rates = [
        line.split(",")[3] for line in (home.outputs / "modern" / "metrics.csv").read_text().splitlines()
    ]
    assert len(set(rates)) == len(rates)  # different in every epoch


def test_resume_after_early_stop_trains_no_further(home: Home):
    never = [
        "early_stopping=default",
        "callbacks.early_stopping.patience=2",
        "callbacks.early_stopping.min_delta=1000",
    ]
    command = ["+experiment=v1", *never, *TINY]
    stdout = home.run(*command, "hydra.run.dir=outputs/early").stdout
    assert "stopped early: after epoch 2 val_mae has not improved for 2 epochs" in stdout
    whole = home.outputs / "early"
    assert json.loads((whole / "report" / "summary.json").read_text())["epochs"] == 3
    home.cut_off(*command, "hydra.run.dir=outputs/cut4", step=STEPS + 2)
    in_report = json.dumps([("figure", 1, "kill")])
    killed = home.forks.start("boneage_pl", "resume=outputs/cut4", OWN, cwd=home.path, FAULT_PLAN=in_report)
    assert killed.wait().returncode == -signal.SIGKILL
    home.run("resume=outputs/cut4", OWN)
    assert differing(home.outputs / "cut4", whole) == []
    more = home.run("resume=outputs/cut4", "trainer.max_epochs=9", OWN).stdout
    assert "stopped early: after epoch 2" in more


@pytest.mark.parametrize(("by", "status"), [pytest.param("int", 130, marks=pytest.mark.slow), ("term", 143)])
def test_signal_stops_after_step_and_resumes(home: Home, v1: Path, by: str, status: int):
    name = f"stopped{status}"
    command = ["+experiment=v1", *TINY, f"hydra.run.dir=outputs/{name}"]
    result = home.cut_off(*command, step=2 * STEPS + 2, by=by)
    assert result.returncode == status, result.stderr
    assert "Traceback" not in result.stderr
    assert f"python -m boneage_pl resume=outputs/{name}" in result.stdout
    assert (home.outputs / name / "metrics.csv").read_text().count("\n") == 3  # not validated
    record = (home.outputs / name / ".hydra" / "overrides.yaml").stat().st_mtime_ns
    result = home.run(*command)  # as a cluster requeues it
    assert "after 2 of 6 epochs" in result.stdout
    assert differing(home.outputs / name, v1) == []
    assert (home.outputs / name / ".hydra" / "overrides.yaml").stat().st_mtime_ns == record


@pytest.mark.slow
def test_sweep_run_is_requeued(home: Home):
    """Slurm requeues a job of a sweep in its folder."""
    sweep = ["-m", "+experiment=v1", "seed=1", *TINY, "hydra.sweep.dir=outputs/sweeps/s"]
    home.cut_off(*sweep, step=2 * STEPS + 2)
    result = home.run(*sweep)
    assert "resuming outputs/sweeps/s/0 after 2 of 6 epochs" in result.stdout
    assert (home.outputs / "sweeps" / "s" / "sweep.csv").exists()


def test_second_ctrl_c_stops_at_once(home: Home):
    command = ["+experiment=v1", *TINY, "hydra.run.dir=outputs/twice"]
    result = home.cut_off(*command, step=2, by="int twice")
    assert result.returncode == 130
    assert "Stopped. Resume with" in result.stderr
    assert "resume=outputs/twice" in result.stderr


@pytest.mark.slow
def test_extended_run_equals_longer_run(home: Home, v1: Path):
    short = [o for o in TINY if "max_epochs" not in o]
    home.run("+experiment=v1", *short, "trainer.max_epochs=4", "hydra.run.dir=outputs/grown")
    result = home.run("resume=outputs/grown", OWN, check=False)
    assert result.returncode == 2
    assert "the run is finished" in result.stderr
    more = ["resume=outputs/grown", "trainer.max_epochs=6", OWN]
    home.cut_off(*more, step=STEPS + 2)  # it continues to six epochs
    home.run("resume=outputs/grown", OWN)
    assert differing(home.outputs / "grown", v1) == []


def test_damaged_last_falls_back_to_previous(home: Home, v1: Path):
    command = ["+experiment=v1", *TINY, "hydra.run.dir=outputs/damaged"]
    home.cut_off(*command, step=3 * STEPS + 2)
    last = home.outputs / "damaged" / "checkpoints" / "last.ckpt"
    content = bytearray(last.read_bytes())
    last.unlink()  # may be a hard link
    middle = len(content) // 2
    content[middle : middle + 100] = bytes(100)  # longer than the padding between tensors
    last.write_bytes(content)
    result = home.run("resume=outputs/damaged", OWN)
    assert "last.ckpt cannot be read as a checkpoint" in result.stdout
    assert "after 2 of 6 epochs" in result.stdout
    assert differing(home.outputs / "damaged", v1) == []


@pytest.mark.slow
def test_image_damaged_during_training_is_named(home: Home):
    brake = "callbacks.brake._target_=tests.helpers.tiny_models.Brake"
    slow = [f"+{brake}", "+callbacks.brake.seconds=0.05"]
    command = ["+experiment=v1", *TINY, *slow, "data.root=data/bad", "data.cache=false"]
    running = home.forks.start("boneage_pl", *command, "hydra.run.dir=outputs/bad", cwd=home.path)
    metrics = home.outputs / "bad" / "metrics.csv"
    while not metrics.exists():
        assert running.poll() is None, running.wait()
        time.sleep(0.005)
    image = home.path / "data" / "bad" / "boneage-training-dataset" / "7.png"
    whole = image.read_bytes()
    image.write_bytes(whole[:2000])
    result = running.wait()
    assert result.returncode == 2
    assert "boneage-training-dataset/7.png: cut short" in result.stderr
    assert "python -m boneage_pl resume=outputs/bad" in result.stderr
    assert "Traceback" not in result.stderr
    image.write_bytes(whole)
    assert "resuming outputs/bad" in home.run("resume=outputs/bad", OWN, brake).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resume=outputs/v1", "optimizer.lr=0.1"], "optimizer.lr cannot change in a resumed run"),
        (["resume=outputs/v1", "ckpt=v1"], "ckpt= and resume= exclude each other"),
        (["resume=outputs/nowhere"], "resume=outputs/nowhere: not a run folder"),
        (["resume=outputs/v1", "trainer.max_epochs=9"], "has model._target_=tests.helpers.tiny_models.Tiny"),
        (["resume=outputs/v1", "trainer.max_epochs=2", OWN], "6 epochs have been trained already"),
        (["resume="], "resume= is empty"),
        (["resume=latest", "output_dir=elsewhere"], "no interrupted run under elsewhere/"),
        (["+experiment=v1", *TINY, "hydra.run.dir=outputs/v1"], "outputs/v1 contains a run"),
    ],
)
def test_invalid_resume_is_refused(home: Home, v1: Path, arguments: list[str], message: str):
    before = {path: path.stat().st_mtime_ns for path in v1.rglob("*") if path.name != "boneage_pl.log"}
    result = home.run(*arguments, check=False)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    after = {path: path.stat().st_mtime_ns for path in v1.rglob("*") if path.name != "boneage_pl.log"}
    assert {p.name for p in before if after[p] != before[p]} <= {".lock"}
