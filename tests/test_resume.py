"""A run that was cut off and resumed is the run that it would have been."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import Result

OWN = ["model._target_=tests.tiny.Tiny", "callbacks.brake._target_=tests.tiny.Brake"]
TINY = [
    "data=phantom",
    "data.generate.count=80",
    "data.generate.size=128",
    "data.image_size=107",
    "data.samples_per_group=4",
    "data.batch_size=8",
    "trainer.max_epochs=6",
    "optimizer.lr=0.001",
    OWN[0],
    f"+{OWN[1]}",
    "+callbacks.brake.seconds=0.05",
]
V2 = ["+experiment=v2", "ckpt=outputs/v1", "scheduler.patience=0", "+scheduler.threshold=0.5"]
ENV = {"PYTHONPATH": str(Path(__file__).parents[1])}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def v1(home: Path, command: Callable[..., Result]) -> Path:
    """A run that nothing interrupted."""
    command("+experiment=v1", *TINY, "hydra.run.dir=outputs/v1", cwd=home, **ENV)
    return home / "outputs" / "v1"


@pytest.fixture(scope="module")
def v2(home: Path, command: Callable[..., Result], v1: Path) -> Path:
    assert v1.exists()
    command(*V2, *TINY, "hydra.run.dir=outputs/v2", cwd=home, **ENV)
    return home / "outputs" / "v2"


def begin(home: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "boneage_pl", *arguments],
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **ENV},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def cut_off(home: Path, name: str, *arguments: str, after: int, by: list[signal.Signals]) -> Result:
    """Start a run, and send it signals inside the epoch that follows `after` whole ones."""
    running = begin(home, *arguments, f"hydra.run.dir=outputs/{name}")
    metrics = home / "outputs" / name / "metrics.csv"
    last = home / "outputs" / name / "checkpoints" / "last.ckpt"
    until = time.monotonic() + 120
    while (metrics.read_text().count("\n") - 1 if metrics.exists() else 0) < after or not last.exists():
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < until
        time.sleep(0.005)
    time.sleep(0.1)
    for number in by:
        running.send_signal(number)
        time.sleep(0.3)
    out, err = running.communicate(timeout=60)
    return Result(running.args, running.returncode, out, err)


def scalars_of(run: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag != "images_per_second"]
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags}


def assert_same(run: Path, whole: Path) -> None:
    assert (run / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    assert (run / "split.csv").read_bytes() == (whole / "split.csv").read_bytes()
    for name in ("best", "last"):
        ours, theirs = (
            torch.load(r / "checkpoints" / f"{name}.ckpt", weights_only=True) for r in (run, whole)
        )
        for key in ("state_dict", "lr_schedulers", "global_step"):
            assert str(ours[key]) == str(theirs[key]), (name, key)
        assert all(torch.equal(ours["state_dict"][k], theirs["state_dict"][k]) for k in theirs["state_dict"])
        moments = [c["optimizer_states"][0]["state"] for c in (ours, theirs)]
        assert all(torch.equal(moments[0][p][k], moments[1][p][k]) for p in moments[1] for k in moments[1][p])
    assert scalars_of(run) == scalars_of(whole)
    assert (run / "report" / "predictions.csv").read_bytes() == (
        whole / "report" / "predictions.csv"
    ).read_bytes()


def test_killed_twice_and_resumed_it_is_the_uninterrupted_run(
    home: Path, command: Callable[..., Result], v1: Path
):
    cut_off(home, "killed", "+experiment=v1", *TINY, after=0, by=[signal.SIGKILL])
    cut_off_again = begin(home, "resume=latest", *OWN)
    metrics = home / "outputs" / "killed" / "metrics.csv"
    while not metrics.exists() or metrics.read_text().count("\n") < 4:
        assert cut_off_again.poll() is None, cut_off_again.communicate()
        time.sleep(0.005)
    cut_off_again.kill()
    cut_off_again.communicate()
    result = command("resume=latest", *OWN, cwd=home, **ENV)
    assert "continuing outputs/killed after " in result.stdout
    assert_same(home / "outputs" / "killed", v1)
    text = (home / "outputs" / "killed" / "boneage_pl.log").read_text()
    assert text.count("v1: data/phantom") == 3  # the log goes on


def test_v2_goes_on_at_the_lowered_rate(home: Path, command: Callable[..., Result], v2: Path):
    rates = {line.split(",")[3] for line in (v2 / "metrics.csv").read_text().splitlines()[1:]}
    assert len(rates) > 2  # it was lowered more than once
    cut_off(home, "cut2", *V2, *TINY, after=3, by=[signal.SIGKILL])
    (home / "outputs" / "v1" / "checkpoints").rename(home / "gone")  # its start is not needed any more
    try:
        command("resume=outputs/cut2", *OWN, cwd=home, **ENV)
    finally:
        (home / "gone").rename(home / "outputs" / "v1" / "checkpoints")
    assert_same(home / "outputs" / "cut2", v2)
    ours, theirs = (
        json.loads((r / "report" / "summary.json").read_text()) for r in (home / "outputs" / "cut2", v2)
    )
    assert ours == theirs


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_after_the_step_and_prints_the_command_to_go_on(
    home: Path, command: Callable[..., Result], v1: Path, number: signal.Signals, status: int
):
    name = f"stopped{status}"
    result = cut_off(home, name, "+experiment=v1", *TINY, after=2, by=[number])
    assert result.returncode == status, result.stderr
    assert "Traceback" not in result.stderr
    assert f"python -m boneage_pl resume=outputs/{name}" in result.stdout
    assert (home / "outputs" / name / "metrics.csv").read_text().count("\n") == 3  # no validation after it
    # a cluster queues the same command again
    result = command("+experiment=v1", *TINY, f"hydra.run.dir=outputs/{name}", cwd=home, **ENV)
    assert "after 2 of 6 epochs" in result.stdout
    assert_same(home / "outputs" / name, v1)


def test_a_second_ctrl_c_stops_at_once(home: Path):
    slow = [*TINY[:-1], "+callbacks.brake.seconds=30"]
    begun = time.monotonic()
    result = cut_off(home, "twice", "+experiment=v1", *slow, after=0, by=[signal.SIGINT, signal.SIGINT])
    assert time.monotonic() - begun < 28
    assert result.returncode == 130
    assert "resume=outputs/twice" in result.stderr


def test_a_longer_run_is_the_run_that_was_longer_from_the_start(
    home: Path, command: Callable[..., Result], v1: Path
):
    short = [o for o in TINY if "max_epochs" not in o]
    command("+experiment=v1", *short, "trainer.max_epochs=4", "hydra.run.dir=outputs/grown", cwd=home, **ENV)
    result = command("resume=outputs/grown", *OWN, cwd=home, check=False, **ENV)
    assert result.returncode == 2
    assert "that run is finished" in result.stderr
    command("resume=outputs/grown", "trainer.max_epochs=6", *OWN, cwd=home, **ENV)
    assert_same(home / "outputs" / "grown", v1)


def test_a_damaged_last_checkpoint_is_named_and_the_one_before_it_used(
    home: Path, command: Callable[..., Result], v1: Path
):
    cut_off(home, "damaged", "+experiment=v1", *TINY, after=3, by=[signal.SIGKILL])
    last = home / "outputs" / "damaged" / "checkpoints" / "last.ckpt"
    content = bytearray(last.read_bytes())
    last.unlink()  # it may have a second name
    content[len(content) // 2] ^= 255
    last.write_bytes(content)
    result = command("resume=outputs/damaged", *OWN, cwd=home, **ENV)
    assert "last.ckpt cannot be read as a checkpoint: it is damaged" in result.stdout
    assert "after 2 of 6 epochs" in result.stdout
    assert_same(home / "outputs" / "damaged", v1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["resume=outputs/v1", "optimizer.lr=0.1"], "optimizer.lr would make it another experiment"),
        (["resume=outputs/v1", "ckpt=v1"], "ckpt= and resume= exclude each other"),
        (["resume=outputs/nowhere"], "resume=outputs/nowhere: no run's folder"),
        (["resume=outputs/v1", "trainer.max_epochs=9"], "names model._target_=tests.tiny.Tiny"),
        (["resume=outputs/v1", "trainer.max_epochs=2", *OWN], "6 epochs are trained already"),
        (["resume="], "resume= is empty"),
        (["resume=latest", "outputs=elsewhere"], "there is no unfinished run under elsewhere/"),
        (["+experiment=v1", *TINY, "hydra.run.dir=outputs/v1"], "outputs/v1 already holds a run"),
    ],
)
def test_what_cannot_be_resumed_is_refused(
    home: Path, command: Callable[..., Result], v1: Path, arguments: list[str], said: str
):
    before = {path: path.stat().st_mtime_ns for path in v1.rglob("*") if path.name != "boneage_pl.log"}
    result = command(*arguments, cwd=home, check=False, **ENV)
    assert result.returncode == 2, result.stderr
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    after = {path: path.stat().st_mtime_ns for path in v1.rglob("*") if path.name != "boneage_pl.log"}
    assert {p.name for p in before if after[p] != before[p]} <= {".lock"}
