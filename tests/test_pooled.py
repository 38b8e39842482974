"""A timm backbone: trained, warm-started at another image size, evaluated, exported."""

import json
from pathlib import Path

import pytest

from tests.conftest import SMALL_PHANTOM
from tests.helpers.fork_server import Forks

pytestmark = pytest.mark.slow

SMALL = [
    *(option for option in SMALL_PHANTOM if "image_size" not in option),
    "data.batch_size=10",
    "trainer.max_epochs=1",
    "optimizer.lr=0.001",
]
POOLED = ["model=backbone", "model.backbone=test_efficientnet", "model.hidden_features=8"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Path:
    home = tmp_path_factory.mktemp("pooled")
    forks.run("+experiment=v1", *SMALL, *POOLED, "data.image_size=64", "hydra.run.dir=outputs/v1/x", cwd=home)
    return home


def validated(run: Path) -> float:
    return json.loads((run / "report" / "summary.json").read_text())["best_val_mae"]


def test_warm_start_at_other_image_size(home: Path, forks: Forks):
    more = [*SMALL, *POOLED, "data.image_size=96", "ckpt=v1", "hydra.run.dir=outputs/v2/x"]
    stdout = forks.run("+experiment=v2", *more, cwd=home).stdout
    assert "at 96 px" in stdout
    assert "v1, its start" in stdout
    out = home / "evaluated"
    evaluated = forks.start("boneage_pl.evaluate", "ckpt=outputs/v2/x", f"out={out}", cwd=home).wait()
    assert evaluated.returncode == 0, evaluated.stderr
    mae = json.loads((out / "metrics.json").read_text())["overall"]["mae"]["value"]
    assert mae == pytest.approx(validated(home / "outputs" / "v2" / "x"), abs=1e-3)


def test_backbone_exports_to_onnx(home: Path, forks: Forks):
    done = forks.start("boneage_pl.export", "ckpt=v1", "format=onnx", "out=v1.onnx", cwd=home).wait()
    assert done.returncode == 0, done.stderr
    assert (home / "v1.onnx").is_file()


def test_other_head_is_other_architecture(home: Path, forks: Forks):
    other = [*SMALL, *POOLED, "model.hidden_features=4", "data.image_size=64", "ckpt=v1"]
    refused = forks.run("+experiment=v2", *other, cwd=home, check=False)
    assert refused.returncode == 2
    assert "To match it, pass model.hidden_features=8" in refused.stderr


def test_unknown_backbone_leaves_no_run(home: Path, forks: Forks):
    wrong = [*SMALL, "model=backbone", "model.backbone=resnet81", "data.image_size=64"]
    refused = forks.run("+experiment=v1", *wrong, "hydra.run.dir=outputs/wrong", cwd=home, check=False)
    assert refused.returncode == 2
    assert "Did you mean resnet18" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (home / "outputs" / "wrong").exists()
