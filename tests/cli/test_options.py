"""Options either work or are rejected by name before anything starts."""

import csv
import os
from pathlib import Path

import pytest

from tests.conftest import SMALL_PHANTOM, Result, balanced_table, write_rsna
from tests.helpers.fork_server import Forks

OWN = "model._target_=tests.helpers.tiny_models.Tiny"
TINY = [
    "+experiment=v1",
    *SMALL_PHANTOM,
    "data.batch_size=8",
    "trainer.max_epochs=2",
    "optimizer.lr=0.001",
    OWN,
]


class Home:
    def __init__(self, path: Path, forks: Forks) -> None:
        self.path = path
        self.forks = forks

    def run(self, *arguments: str, check: bool = True, **env: str) -> Result:
        return self.forks.run(*arguments, cwd=self.path, check=check, **env)

    def files(self) -> set[Path]:
        return set(self.path.rglob("*"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Home:
    home = Home(tmp_path_factory.mktemp("home"), forks)
    home.run("+experiment=v1", *TINY[1:], "hydra.run.dir=outputs/plain")
    return home


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_trainer_options_reach_lightning(home: Home):
    options = [
        "trainer.limit_train_batches=2",
        "trainer.limit_val_batches=0.5",
        "trainer.check_val_every_n_epoch=2",
        "trainer.num_sanity_val_steps=1",
        "trainer.gradient_clip_val=0.5",
        "trainer.precision=bf16-mixed",
        "trainer.deterministic=true",
        "trainer.detect_anomaly=true",
        "trainer.profiler=simple",
        "trainer.enable_model_summary=true",
        "trainer.reload_dataloaders_every_n_epochs=1",
        "scheduler=plateau",
    ]
    stdout = home.run(*TINY, *options, "hydra.run.dir=outputs/options").stdout
    rows = rows_of(home.path / "outputs" / "options")
    assert [bool(row["val_mae"]) for row in rows] == [False, True]
    assert all(float(row["train_mae"]) > 0 for row in rows)
    for words in ("validation uses only a part", "Trainable params", "Profiler Report"):
        assert words in stdout


@pytest.mark.slow
def test_resume_with_sparse_validation_ends_with_validated_best(home: Home):
    every = "trainer.check_val_every_n_epoch=2"
    run = "outputs/seldom"
    home.run(*TINY, every, f"hydra.run.dir={run}")
    home.run(f"resume={run}", "trainer.max_epochs=4", OWN)
    rows = rows_of(home.path / run)
    assert [bool(row["val_mae"]) for row in rows] == [False, True, False, True]


def test_fast_dev_run_writes_no_run(home: Home):
    before = home.files()
    result = home.run(*TINY, "trainer.fast_dev_run=true")
    assert "trainer.fast_dev_run: completed" in result.stdout
    assert home.files() == before


def test_early_stopping_ends_run_normally(home: Home):
    stop = [
        "+callbacks.stop._target_=lightning.pytorch.callbacks.EarlyStopping",
        "+callbacks.stop.monitor=val_mae",
        "+callbacks.stop.min_delta=1000",
        "+callbacks.stop.patience=1",
    ]
    run = "outputs/stopped_early"
    home.run(*TINY, *stop, "trainer.max_epochs=9", f"hydra.run.dir={run}")
    assert len(rows_of(home.path / run)) == 2
    assert (home.path / run / "report" / "summary.json").exists()


STEP = ["+scheduler._target_=torch.optim.lr_scheduler.StepLR", "+scheduler._partial_=true"]
STOP = ["+callbacks.stop._target_=lightning.pytorch.callbacks.EarlyStopping"]
REFUSED: list[tuple[list[str], str]] = [
    (["trainer.max_steps=5"], "trainer.max_steps is not supported: use trainer.max_epochs"),
    (["+trainer.overfit_batches=2"], "trainer.overfit_batches is not supported: it validates on training"),
    (["trainer.max_time=00:01:00"], "trainer.max_time is not supported"),
    (["trainer.limit_val_batches=0"], "trainer.limit_val_batches=0: it must be"),
    (["trainer.limit_train_batches=1.5"], "trainer.limit_train_batches=1.5: it must be"),
    (["trainer.check_val_every_n_epoch=3"], "the last of 2 epochs would not be validated"),
    (["+trainer.nonsense=1"], "trainer.nonsense: no such option"),
    (["trainer.inference_mode=true"], "trainer.inference_mode is not supported: validation metrics"),
    (["trainer.use_distributed_sampler=true"], "trainer.use_distributed_sampler is not supported"),
    (["trainer.strategy=fsdp"], "trainer.strategy=fsdp: use trainer=ddp"),
    (["trainer.precision=17"], "trainer.precision=17: it must be auto"),
    (["trainer.precision=bf16-true"], "trainer.precision=bf16-true: it must be auto"),
    (["seed=99999999999"], "seed=99999999999: it must be less than 4294967296"),
    (["data.phantom.size=abc"], "data.phantom.size=abc: it must be a valid integer"),
    (["optimizer=null"], "optimizer=null: choose one of adam"),
    (["scheduler="], "scheduler=: choose one of cosine, cosine_restart, none, plateau"),
    (["~optimizer._target_"], "it must have a _target_"),
    (["model=3"], "model=3: choose one of backbone"),
    (["optimizer=[adam,adamw]"], "optimizer=[adam,adamw]: choose one of adam, adamw"),
    (["transforms.train.flip=3"], "transforms.train.flip=3: it must have a _target_, or be null"),
    (["~tta"], "tta: this option is required but was removed"),
    (["~trainer.max_epochs"], "trainer.max_epochs: this option is required but was removed"),
    (["callbacks.checkpoint=null"], "callbacks: callbacks.checkpoint is required"),
    (["~callbacks.checkpoint"], "callbacks: callbacks.checkpoint is required"),
    (STEP, "scheduler (StepLR) cannot be created: StepLR.__init__() missing 1 required positional argument"),
    ([*STOP, "+callbacks.stop.monitor=val_loss"], "EarlyStopping monitors val_loss; choose from train_mae"),
    ([*STOP], "callbacks.stop cannot be created: "),
    (
        ["transforms=augmented", "transforms.train.blur.p=2"],
        "transforms.train.blur.p=2: it must be less than or",
    ),
    (["transforms.train.flip.p=often"], "transforms.train.flip.p=often: it must be a valid number"),
    (["+transforms.train.flip.share=1"], "transforms.train.flip.share: Unexpected keyword argument"),
    (["optimizer._target_=torch.optim.Adamm"], "optimizer cannot be created: "),
    (["trainer.sync_batchnorm=true", "trainer.accelerator=cpu"], "synchronizes BatchNorm on GPUs only"),
    (["data.root=/proc/x"], "/proc/x cannot be written"),
    (["data.root=~nobody_here/x"], "~nobody_here/x: no such home folder"),
    (["hydra.job.chdir=true"], "hydra.job.chdir=true is not supported: paths are"),
    (["trainer.fast_dev_run=abc"], "trainer.fast_dev_run=abc"),
    (["+optimzer.lr=0.1"], "optimzer: no such option"),
    (["tta=up"], "tta=up: it must be flip, degrees"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=[" ".join(o) for o, _ in REFUSED])
def test_invalid_options_are_named_and_write_nothing(home: Home, options: list[str], message: str):
    before = home.files()
    result = home.run(*TINY, *options, check=False)
    assert result.returncode == 2, result.stdout + result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert home.files() == before


def test_empty_sweep_is_refused(home: Home):
    result = home.run("-m", *TINY, "seed=1,2", "trainer.fast_dev_run=true", check=False)
    assert result.returncode == 2
    assert "nothing is kept to compare" in result.stderr


def test_hydra_full_error_prints_traceback(home: Home):
    result = home.run(*TINY, *STEP, check=False, HYDRA_FULL_ERROR="1")
    assert result.returncode == 2
    assert "Traceback" in result.stderr
    assert "step_size" in result.stderr


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("data.num_workers=-1", "data.num_workers=-1: it must be greater than or equal to 0"),
        ("trainer.devices=2", "trainer.devices=2: it must be 1, or"),
    ],
)
def test_resume_checks_options_like_a_new_run(home: Home, option: str, message: str):
    result = home.run("resume=outputs/plain", "trainer.max_epochs=4", OWN, option, check=False)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_refused_resume_removes_nothing(home: Home):
    """A run that is killed while its cache is built leaves no more than a rejected command."""
    run = home.path / "outputs" / "prepared_only"
    data = home.path / "disk"
    write_rsna(data, balanced_table(4))
    options = ["data.root=disk", *(o for o in TINY if not o.startswith(("data=", "data.phantom")))]
    plan = '[["prepare", 5, "kill"]]'
    killed = home.run(*options, f"hydra.run.dir={run}", check=False, FAULT_PLAN=plan)
    assert killed.returncode == -9
    there = sorted(run.rglob("*"))
    data.rename(home.path / "away")
    try:
        results = [home.run(f"resume={name}", OWN, check=False) for name in (run, "latest")]
    finally:
        (home.path / "away").rename(data)
    for result in results:
        assert result.returncode == 2
        assert "data.root=" in result.stderr
    assert sorted(run.rglob("*")) == there
    home.run(f"resume={run}", OWN)


@pytest.mark.slow
def test_simultaneous_runs_get_separate_folders(home: Home):
    dated = "hydra.run.dir=outputs/same/${now:%Y}"  # every run in the same second
    both = [home.forks.start("boneage_pl", *TINY, dated, cwd=home.path) for _ in range(2)]
    assert [running.wait().returncode for running in both] == [0, 0]
    assert len([p for p in (home.path / "outputs" / "same").iterdir() if (p / "report").exists()]) == 2


def test_tilde_expands_to_home(home: Home, tmp_path: Path):
    home.run(*TINY, "output_dir=~/o", "data.cache_dir=~/store", HOME=str(tmp_path))
    assert [run.parent.name for run in (tmp_path / "o").glob("v1/*/report")] != []
    assert list((tmp_path / "store").glob("*.npy"))
    assert not (home.path / "~").exists()


def test_shadowing_config_name_is_refused(home: Home, tmp_path: Path):
    (tmp_path / "experiment").mkdir()
    own = tmp_path / "experiment" / "v1.yaml"
    own.write_text("# @package _global_\n# mine\noptimizer: {lr: 0.5}\n")
    result = home.run("--config-dir", str(tmp_path), *TINY, check=False)
    assert result.returncode == 2
    assert f"{own} has the name of a file of the project" in result.stderr


def test_config_dir_experiment_is_listed_trained_and_found(home: Home, tmp_path: Path):
    (tmp_path / "experiment" / "sub").mkdir(parents=True)
    (tmp_path / "experiment" / "sub" / "mine.yaml").write_text(
        "# @package _global_\n# A gentle one.\nseed: 2\n"
    )
    added = ["--config-dir", str(tmp_path)]
    assert "sub/mine" in home.run(*added, "--help").stdout
    home.run(*added, "+experiment=sub/mine", *TINY[1:])
    home.run("+experiment=v2", "ckpt=sub/mine", *TINY[1:], "trainer.max_epochs=1")


@pytest.mark.slow
def test_custom_network_needs_no_backbone_options(home: Home):
    own = ["model._target_=tests.helpers.tiny_models.Plain", "+model.layers=0", "+model.residual=false"]
    home.run(*TINY, *own, "hydra.run.dir=outputs/own")
    home.run("+experiment=v2", "ckpt=outputs/own", *TINY[1:], *own, "trainer.max_epochs=1")


@pytest.mark.slow
def test_warm_start_releases_checkpoint(home: Home):
    """A mapped file that is replaced would occupy the disk until the run ends."""
    run = home.path / "outputs" / "mapped"
    home.run(*TINY, f"hydra.run.dir={run}")
    maps = ["+callbacks.maps._target_=tests.helpers.tiny_models.Maps"]
    result = home.run("+experiment=v2", f"ckpt={run}", *TINY[1:], *maps, "hydra.run.dir=outputs/maps")
    assert "mapped: none" in result.stdout
    longer = ["trainer.max_epochs=3", *maps]
    assert os.path.exists(run)  # noqa: PTH110
    result = home.run("resume=outputs/maps", *longer[:1], OWN, maps[0].removeprefix("+"))
    assert "mapped: none" in result.stdout


def test_skipped_rows_are_listed_in_run(home: Home):
    write_rsna(home.path / "some", balanced_table(5))
    bad = home.path / "some" / "boneage-training-dataset" / "7.png"
    bad.write_bytes(bad.read_bytes()[:100])
    options = ["data.root=some", *(o for o in TINY if not o.startswith(("data=", "data.phantom")))]
    assert home.run(*options, check=False).returncode == 2
    home.run(*options, "data.on_invalid=skip", "trainer.max_epochs=1", "hydra.run.dir=outputs/skipped")
    with (home.path / "outputs" / "skipped" / "skipped.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["id"] == "7"
    assert "cut short" in row["problem"]
    assert "7.png" in row["where"]


def test_on_device_images_train_identically(home: Home):
    home.run(*TINY, "data.on_device=true", "hydra.run.dir=outputs/on_device")
    plain, resident = (home.path / "outputs" / name / "metrics.csv" for name in ("plain", "on_device"))
    assert resident.read_text() == plain.read_text()


@pytest.mark.slow
def test_missing_compiler_is_logged_and_skipped(home: Home):
    env = {"PATH": "/nowhere", "TORCHINDUCTOR_CACHE_DIR": str(home.path / "compiled")}
    run = "hydra.run.dir=outputs/compiled"
    result = home.run(*TINY, "trainer.accelerator=cpu", "compile=true", run, check=False, **env)
    assert result.returncode == 2
    assert "compile: InvalidCxxCompiler" in result.stderr
    assert "Traceback" not in result.stderr
    home.run("resume=outputs/compiled", OWN, "compile=false")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_compiled_network_trains_identically(home: Home):
    """Dropout and rounding differ, so errors of the first epoch agree only roughly."""
    one = ["trainer.max_epochs=1", "trainer.accelerator=cpu"]
    for name, compiled in (("plainly", "false"), ("compiled_too", "true")):
        home.run(*TINY, *one, f"compile={compiled}", f"hydra.run.dir=outputs/{name}")
    plain, compiled = (rows_of(home.path / "outputs" / name)[0] for name in ("plainly", "compiled_too"))
    assert float(compiled["train_mae"]) == pytest.approx(float(plain["train_mae"]), rel=1e-3)
    home.run("+experiment=v2", "ckpt=outputs/compiled_too", *TINY[1:], *one)  # weight names without a prefix
