"""The command line without training: help, errors, and which modules it imports."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Result
from tests.helpers.fork_server import Forks
from tests.training.test_runs import make_run

EXPERIMENTS = ["v1", "v2", "lr_0.1_failure"]


@pytest.mark.parametrize("arguments", [["--help"], ["+experiment=v1", "--help"], []])
def test_help_lists_commands_and_choices(
    command: Callable[..., Result], tmp_path: Path, arguments: list[str]
):
    text = command(*arguments, cwd=tmp_path).stdout
    for name in [*EXPERIMENTS, "rsna", "phantom", "ckpt=", "data.root=", "outputs/"]:
        assert name in text
    assert "Adam at 0.01 for 30 epochs" in text
    assert list(tmp_path.iterdir()) == []


def test_options_without_experiment_exit_2(command: Callable[..., Result], tmp_path: Path):
    result = command("data=phantom", cwd=tmp_path, check=False)
    assert result.returncode == 2
    assert "+experiment=NAME" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        [],
        ["--cfg", "job", "+experiment=v1"],
        ["+experiment=v9"],
        ["+experiment=v1", "data.rooot=x"],
        ["+experiment=v2"],
    ],
)
def test_help_imports_no_torch(tmp_path: Path, arguments: list[str]):
    """Importing torch takes seconds; these commands respond in a fraction of one."""
    script = (
        "import runpy, sys\n"
        f"sys.argv = ['boneage_pl', *{arguments!r}]\n"
        "try:\n    runpy.run_module('boneage_pl', run_name='__main__')\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'torch', 'lightning', 'pandas', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["+experiment=v9"], "Could not find 'experiment/v9'"),
        (["+experiment=lr_failure"], "experiment=lr_failure: did you mean experiment=lr_0.1_failure?"),
        (["+experiment=v1", "data=phantm"], "data=phantm: did you mean data=phantom or data=phantom_small?"),
        (["+experiment=v1", "lr=0.1"], "lr: did you mean optimizer.lr?"),
        (["+experiment=v3", "transforms.train.size.sise=9"], "transforms.train.size.size"),
        (["+experiment=v1", "data.workers=2"], "data.workers: did you mean data.num_workers"),
        (["+experiment=v1", "data.rooot=x"], "data.rooot: did you mean data.root or"),
        (["+experiment=v1", "trainer.accelerator=gpu"], "trainer.accelerator=gpu: PyTorch"),
        (["+experiment=v1", "data.on_invalid=maybe"], "data.on_invalid=maybe: must be raise or skip"),
        (["-m", "+experiment=v1", "seed=1,2", "--cfg", "job"], "--multirun, --cfg"),
        (["+experiment=v2"], "Train v1 first:\n  python -m boneage_pl +experiment=v1"),
        (["+experiment=v2", "ckpt=nowhere"], "ckpt=nowhere: no such file or run folder"),
        (["+experiment=v2", "ckpt=outputs/lr=0.1"], "'ckpt=\"outputs/lr=0.1\"'"),
        (["+experiment=v1", "data.root=nowhere"], "data.root=nowhere"),
        (["+experiment=v1", "data.image_size=106"], "use at least 107 pixels"),
        (["+experiment=v1", "data.batch_size=0"], "data.batch_size=0: it must be greater than or equal to 1"),
        (["+experiment=v1", "optimizer.lr=fast"], "optimizer.lr=fast: it must be a valid number"),
        (["+experiment=v1", "trainer.max_epochs=0"], "trainer.max_epochs=0"),
        (["+experiment=v1", "seed=-1"], "seed=-1"),
        (["+experiment=v1", "model.hidden_features=0"], "model.hidden_features=0: it must be"),
        (
            ["+experiment=v1", "+data.rooot=x"],
            "data.rooot: BoneAgeDataModule has no such option. Did you mean",
        ),
        (["+experiment=v1", "+data.5=15"], "data.5: BoneAgeDataModule has no such option."),
        (["+experiment=v1", "data.prefetch_factor=0"], "data.prefetch_factor=0"),
        (["+experiment=v1", "trainer.devices=2"], "trainer.devices=2: it must be 1, or"),
    ],
)
def test_invalid_options_exit_2(
    command: Callable[..., Result], tmp_path: Path, rsna: Path, arguments: list[str], message: str
):
    # with valid data, whose errors would be reported first
    result = command(*arguments, cwd=tmp_path, check=False, BONEAGE_DATA=str(rsna))
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert [path.name for path in tmp_path.rglob("*") if path.name != "outputs"] == []


@pytest.mark.parametrize(
    ("door", "lacks"), [("predict", "images"), ("evaluate", "ckpt"), ("compare", "runs")]
)
def test_missing_mandatory_option_exits_2(forks: Forks, tmp_path: Path, door: str, lacks: str):
    result = forks.start(f"boneage_pl.{door}", cwd=tmp_path).wait(60)
    assert result.returncode == 2
    assert result.stderr == f"error: Missing required option {lacks}= (see --help).\n"


def test_v2_without_ckpt_suggests_newest_v1(command: Callable[..., Result], tmp_path: Path):
    make_run(tmp_path / "outputs" / "v1" / "old", "v1", age=2)
    make_run(tmp_path / "outputs" / "v1" / "new", "v1", age=1)
    options = ["data.image_size=128", "trainer.max_epochs=3", "optimizer.lr=0.1"]
    result = command("+experiment=v2", *options, cwd=tmp_path, check=False)
    assert result.returncode == 2
    expected = f"python -m boneage_pl +experiment=v2 ckpt=outputs/v1/new {' '.join(options)}"
    assert expected in result.stderr


def test_run_dir_is_never_overwritten(command: Callable[..., Result], tmp_path: Path):
    run = make_run(tmp_path / "outputs" / "here", "v1", age=0)
    record = (run / ".hydra" / "hydra.yaml").read_text()
    result = command("+experiment=v1", "hydra.run.dir=outputs/here", cwd=tmp_path, check=False)
    assert result.returncode == 2
    assert "contains a run and is not overwritten" in result.stderr
    assert (run / ".hydra" / "hydra.yaml").read_text() == record


def test_experiments_compose_as_published(command: Callable[..., Result], tmp_path: Path):
    from omegaconf import OmegaConf

    def config(name: str):
        return OmegaConf.create(command("--cfg", "job", f"+experiment={name}", cwd=tmp_path).stdout)

    v1, v2, failure = (config(name) for name in EXPERIMENTS)
    assert (v1.optimizer._target_, v1.optimizer.lr, v1.trainer.max_epochs) == ("torch.optim.Adam", 0.01, 30)
    assert (v1.data.image_size, v1.data.batch_size, v1.data.samples_per_group) == (500, 32, 400)
    assert v1.scheduler is None
    assert v1.model.weights == failure.model.weights == "imagenet"
    assert v2.scheduler._target_ == "torch.optim.lr_scheduler.ReduceLROnPlateau"
    assert (v2.scheduler.factor, v2.scheduler.patience) == (0.5, 5)
    assert (v2.optimizer.lr, v2.optimizer.state, v2.trainer.max_epochs) == (0.001, None, 40)
    assert failure.optimizer.lr == 0.1
    failure.optimizer.lr, failure.suggested_next = 0.01, "v2"
    assert failure == v1  # no other difference
