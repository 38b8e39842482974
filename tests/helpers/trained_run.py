"""A run of a tiny network on phantoms, trained once for all tests."""

import os
import shutil
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from filelock import FileLock

from boneage_pl import BoneAgePredictor
from tests.conftest import Result
from tests.helpers.fork_server import Forks

MODEL = "tests.helpers.tiny_models.Tiny"
OWN = f"+model._target_={MODEL}"
# enough images to fit out-of-distribution statistics: 240 to train on and 80 to validate with
TRAINING = [
    "+experiment=v1",
    "data=phantom",
    "data.phantom.count=400",
    "data.phantom.size=128",
    "data.image_size=107",
    "data.samples_per_group=16",
    "trainer.max_epochs=3",
    "optimizer.lr=0.001",
    "trainer.precision=32",  # so that float32 exports agree to 1e-3 months
    f"model._target_={MODEL}",
]


class Home:
    """A folder with a run and its phantoms."""

    def __init__(self, path: Path, forks: Forks) -> None:
        self.path, self.forks = path, forks
        self.images = path / "data" / "phantom" / "boneage-training-dataset"
        self.ckpt = path / "outputs" / "a" / "checkpoints" / "best.ckpt"
        self.record = torch.load(self.ckpt, weights_only=True)["boneage_pl"]

    def predict(self, *options: str, check: int = 0, cwd: Path | None = None) -> Result:
        command = [OWN, "ckpt=outputs/a", *options]
        if cwd:
            command[1] = f"ckpt={self.path}/outputs/a"
        result = self.forks.start("boneage_pl.predict", *command, cwd=cwd or self.path).wait(120)
        assert result.returncode == check, result.stdout + result.stderr
        assert "Traceback" not in result.stderr
        return result

    def model(self, **options: object) -> BoneAgePredictor:
        repeated = {"model": {"_target_": MODEL}}
        return BoneAgePredictor.load(self.path / "outputs" / "a", trusted_config=repeated, **options)


H = TypeVar("H", bound=Home)


def home_of(kind: type[H], temporary: pytest.TempPathFactory, forks: Forks) -> H:
    """Return a copy of the run, which the first caller trains."""
    base = temporary.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    trained = shared / "trained"
    with FileLock(shared / "trained.lock"):
        if not (trained / "done").exists():  # not moved, since its metadata have the folder of the images
            trained.mkdir()
            forks.run(*TRAINING, "hydra.run.dir=outputs/a", cwd=trained)
            (trained / "done").touch()
    path = temporary.mktemp("home")
    shutil.copytree(trained, path, dirs_exist_ok=True)
    return kind(path, forks)
