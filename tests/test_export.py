"""The command `export`: files predict like the checkpoint and have metadata."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import onnx as onnx_library
import onnxruntime
import pandas as pd
import pytest
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image

from boneage_pl import BoneAgePredictor
from boneage_pl.data.images.radiograph import load_radiograph
from boneage_pl.data.images.resize import ResizeSpec
from boneage_pl.deploy.export_module import ExportModule
from boneage_pl.errors import BoneAgeError
from tests.conftest import Result
from tests.helpers.fork_server import Forks
from tests.helpers.trained_run import MODEL, OWN, TRAINING, Home, home_of

EXAMPLE = Path(__file__).parents[1] / "examples" / "onnx_predict.py"
HINT = "An export is verified on real images"


class Exports(Home):
    """A run of the tiny network and its exports."""

    def export(self, *options: str, check: int = 0, ckpt: str = "outputs/a") -> Result:
        named = [OWN, f"ckpt={ckpt}", "verify_count=40", *options]
        result = self.forks.start("boneage_pl.export", *named, cwd=self.path).wait(180)
        assert result.returncode == check, result.stdout + result.stderr
        assert "Traceback" not in result.stderr
        return result

    def validation(self) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float64]]:
        """Return validation images, their sexes, and the training's predictions."""
        ids = self.record["validation"]["id"]
        frame = ResizeSpec(107)
        pixels = np.stack([frame.apply(load_radiograph(self.images / f"{i}.png").image) for i in ids])
        predicted = np.array(self.record["validation"]["predicted"])
        return pixels[:, None], np.array(self.record["validation"]["male"], np.float32), predicted

    def mae(self, months: NDArray[np.float64]) -> float:
        return float(np.abs(months - np.array(self.record["validation"]["bone_age"])).mean())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Exports:
    return home_of(Exports, tmp_path_factory, forks)


@pytest.fixture(scope="module")
def onnx(home: Exports) -> Path:
    home.export("format=onnx", "out=a.onnx")
    return home.path / "a.onnx"


@pytest.fixture(scope="module")
def weights(home: Exports) -> Path:
    home.export("format=safetensors", "out=shared/a.safetensors")
    return home.path / "shared" / "a.safetensors"


def run_onnx(
    path: Path, image: NDArray[np.uint8], male: NDArray[np.float32], batch: int
) -> NDArray[np.float64]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    parts = [slice(at, at + batch) for at in range(0, len(image), batch)]
    return np.concatenate(
        [session.run(["months"], {"image": image[p], "male": male[p]})[0] for p in parts]
    ).astype(float)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_onnx_matches_training_predictions(home: Exports, onnx: Path, batch: int):
    image, male, stored = home.validation()
    months = run_onnx(onnx, image, male, batch)
    best = pd.read_csv(home.path / "outputs" / "a" / "metrics.csv")["val_mae"].min()
    assert home.mae(months) == pytest.approx(best, abs=1e-3)
    assert np.abs(months - stored).max() < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_onnx_is_of_old_opset_and_ir(home: Exports, precision: str):
    home.export("format=onnx", f"out={precision}_old.onnx", f"precision={precision}", "max_mae_increase=100")
    model = onnx_library.load(home.path / f"{precision}_old.onnx")
    onnx_library.checker.check_model(model)
    assert model.ir_version == 8
    ((domain, version),) = [(o.domain, o.version) for o in model.opset_import]
    assert domain == ""
    assert version <= 18  # 18, because of this network's mean over axes


def test_torch_export_matches(home: Exports, onnx: Path):
    stdout = home.export("format=torch_export").stdout
    assert "float32 differs from PyTorch by at most 0.0000 months" in stdout
    (path,) = (home.path / "outputs" / "a" / "export").glob("*.pt2")
    found = {"boneage_pl.json": ""}
    program = torch.export.load(path, extra_files=found).module()
    image, male, _ = home.validation()
    months = program(torch.from_numpy(image[:5]), torch.from_numpy(male[:5])).detach().numpy()
    assert np.abs(months - run_onnx(onnx, image[:5], male[:5], 5)).max() < 0.05
    assert json.loads(found["boneage_pl.json"])["image_size"] == "107"


def test_export_metadata_is_complete(home: Exports, onnx: Path):
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert (metadata["image_size"], metadata["units"], metadata["resize_mode"], metadata["experiment"]) == (
        "107",
        "months",
        "crop",
        "v1",
    )
    assert [i.shape for i in session.get_inputs()] == [["batch", 1, 107, 107], ["batch"]]
    rows = json.loads(metadata["intervals"])
    months, male = 100.0, True
    (row,) = [r for r in rows if r["male"] == male and r["from"] <= months < (r["until"] or np.inf)]
    assert row["half_width"] == home.model().intervals.half_width(months, male=male)
    assert str(home.path).encode() not in onnx.read_bytes()  # no local paths


@pytest.mark.slow
def test_ensemble_exports_as_mean(home: Exports):
    home.forks.run(*TRAINING, "seed=2", "hydra.run.dir=outputs/b", cwd=home.path)
    home.export("format=onnx", "out=mean.onnx", ckpt="[outputs/a,outputs/b]")
    image, male, _ = home.validation()
    model = BoneAgePredictor.load(
        [home.path / "outputs" / name for name in "ab"], trusted_config={"model": {"_target_": MODEL}}
    )
    with torch.inference_mode():
        shown = torch.from_numpy(image), torch.from_numpy(male)
        each = [member.predictor.module(*shown).numpy() for member in model.members]
    assert np.abs(each[0] - each[1]).max() > 1
    assert np.abs(run_onnx(home.path / "mean.onnx", image, male, 5) - np.mean(each, axis=0)).max() < 0.05
    stderr = home.export(
        "format=safetensors", "out=x.safetensors", ckpt="[outputs/a,outputs/b]", check=2
    ).stderr
    assert "export each separately" in stderr


@pytest.mark.parametrize("precision", [pytest.param("float16", marks=pytest.mark.slow), "int8"])
def test_reduced_precision_reports_cost(home: Exports, onnx: Path, precision: str):
    name = f"{precision}.onnx"
    stdout = home.export("format=onnx", f"precision={precision}", f"out={name}", "max_mae_increase=2").stdout
    image, male, _ = home.validation()
    months, exact = run_onnx(home.path / name, image, male, 5), run_onnx(onnx, image, male, 5)
    assert np.abs(months - exact).max() > 0
    assert abs(home.mae(months) - home.mae(exact)) < 2
    (row,) = [line for line in stdout.splitlines() if line.startswith(precision) and "±" in line]
    assert f"{float(row.split()[5]):+.3f}" == row.split()[5]
    session = onnxruntime.InferenceSession(home.path / name, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map["precision"] == precision


@pytest.mark.slow
def test_excessive_cost_writes_nothing(home: Exports):
    """Ranges that are calibrated on a nearly black image clip all others."""
    folder = home.path / "black"
    folder.mkdir()
    for name in ("0.png", "2.png"):  # every other image verifies, the others calibrate
        shutil.copy(home.images / "1.png", folder / name)
    black = np.zeros((107, 107), np.uint8)
    black[0, 0] = 1
    Image.fromarray(black).save(folder / "1.png")
    options = [
        "format=onnx",
        "precision=int8",
        "verify_images=black",
        "out=bad.onnx",
        "max_mae_increase=0.001",
    ]
    result = home.export(*options, check=2)
    assert "max_mae_increase=0.001" in result.stderr
    assert not list(home.path.glob("*bad*"))
    assert not list(home.path.glob(".export_*"))


def test_safetensors_loads_like_checkpoint(home: Exports, weights: Path, tmp_path: Path):
    images = f"images=[{home.images}/1.png,{home.images}/2.png]"
    tables = [home.predict(f"ckpt={ckpt}", images, "sex=F").stdout for ckpt in ("outputs/a", weights)]
    assert tables[0] == tables[1]  # months, interval, flags
    for at, ckpt in enumerate(("outputs/a", weights)):
        options = [OWN, f"ckpt={ckpt}", f"out={tmp_path}/{at}"]
        result = home.forks.start("boneage_pl.evaluate", *options, cwd=home.path).wait(120)
        assert result.returncode == 0, result.stderr
    numbers = [json.loads((tmp_path / f"{at}" / "metrics.json").read_text()) for at in range(2)]
    assert numbers[0]["overall"] == numbers[1]["overall"]
    best = pd.read_csv(home.path / "outputs" / "a" / "metrics.csv")["val_mae"].min()
    assert numbers[0]["overall"]["mae"]["value"] == pytest.approx(best, abs=1e-3)
    assert numbers[0]["coverage"] == numbers[1]["coverage"]


@pytest.mark.slow
def test_safetensors_warm_starts_like_checkpoint(home: Exports, weights: Path):
    short = [o for o in TRAINING if not o.startswith(("+experiment", "trainer.max_epochs"))]
    for name, ckpt in (("c", "outputs/a"), ("d", weights)):
        options = ["+experiment=v2", f"ckpt={ckpt}", "trainer.max_epochs=1", f"hydra.run.dir=outputs/{name}"]
        home.forks.run(*options, *short, cwd=home.path)
    rows = [pd.read_csv(home.path / "outputs" / name / "metrics.csv") for name in "cd"]
    pd.testing.assert_frame_equal(*rows)


@pytest.mark.slow
def test_safetensors_exports_again(home: Exports, weights: Path, onnx: Path):
    home.export("format=onnx", "out=again.onnx", ckpt=str(weights.parent))
    image, male, _ = home.validation()
    assert (run_onnx(home.path / "again.onnx", image, male, 5) == run_onnx(onnx, image, male, 5)).all()


def test_model_card_is_filled_from_run(home: Exports, weights: Path):
    card = (weights.parent / "model_card.md").read_text()
    _, front, text = card.split("---\n", 2)
    numbers = json.loads((home.path / "outputs" / "a" / "report" / "metrics.json").read_text())
    (result,) = yaml.safe_load(front)["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == numbers["overall"]["mae"]["value"]
    for part in ("overall", *numbers["by_sex"], *numbers["by_age"]):
        mae = (numbers["overall"] if part == "overall" else part)["mae"]
        assert f"{mae['value']:.2f} ({mae['low']:.2f} to {mae['high']:.2f})" in text
    for heading in ("Intended use", "Training data", "Evaluation data", "Metrics", "Limits and risks"):
        assert f"\n## {heading}\n" in text
    assert "Trained on synthetic radiographs; not valid for real hands" in text
    assert "Not measured" in text  # the robustness test
    assert str(home.path) not in card
    for name in ("{{", "{%", ": None", "| None", "nan ", "Undefined"):
        assert name not in text


@pytest.mark.slow
def test_model_card_has_robustness(home: Exports):
    options = [OWN, "ckpt=outputs/a", "robustness=true"]
    assert home.forks.start("boneage_pl.evaluate", *options, cwd=home.path).wait(200).returncode == 0
    home.export("format=model_card", "out=card.md")
    (file,) = (home.path / "outputs" / "a").glob("report_*/metrics.json")
    text = (home.path / "card.md").read_text()
    for way in json.loads(file.read_text())["robustness"]:
        assert f"| {way['name']} | {way['mae']['value']:.2f} (" in text


def test_example_script_runs(home: Exports, onnx: Path, tmp_path: Path):
    """Without boneage_pl and torch."""
    installed = Path(sysconfig.get_paths()["purelib"])
    for name in (
        "numpy",
        "numpy.libs",
        "PIL",
        "pillow.libs",
        "onnxruntime",
        "flatbuffers",
        "google",
        "packaging",
    ):
        if (installed / name).exists():
            (tmp_path / name).symlink_to(installed / name)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-S", *arguments]
        env = {**os.environ, "PYTHONPATH": str(tmp_path)}
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)

    for module in ("boneage_pl", "torch"):
        assert "ModuleNotFoundError" in run("-c", f"import {module}").stderr
    files = [str(home.images / f"{i}.png") for i in (1, 2, 3)]
    result = run(str(EXAMPLE), str(onnx), "M", *files)
    assert result.returncode == 0, result.stderr
    predictions = home.model().predict(files, sex="M")
    for line, prediction in zip(result.stdout.splitlines(), predictions, strict=True):
        months, width = (float(word) for word in line.split() if word.replace(".", "").isdigit())
        assert abs(months - prediction.months) < 1
        assert abs(width - (prediction.upper - prediction.months)) < 0.06
    turned = Image.open(files[0]).convert("L").transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # EXIF: rotate clockwise
    turned.save(tmp_path / "turned.png", exif=exif)
    found = run(str(EXAMPLE), str(onnx), "M", str(tmp_path / "turned.png")).stdout
    assert abs(float(found.split()[1]) - predictions[0].months) < 1
    Image.fromarray(np.zeros((200, 200), np.uint16)).save(tmp_path / "deep.png")
    refused = run(str(EXAMPLE), str(onnx), "M", str(tmp_path / "deep.png"))
    assert refused.returncode != 0
    assert "no 8-bit image" in refused.stderr


@pytest.mark.parametrize("mode", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(130, 201), (201, 130), (64, 64), (107, 107)])
def test_example_resizes_as_the_training(mode: Any, size: tuple[int, int]):
    names: dict[str, Any] = {}
    exec(EXAMPLE.read_text().partition("\nfile, sex")[0], names)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, size[::-1], np.uint8))
    square = np.asarray(names["to_square"](image, 107, mode))
    assert (square == ResizeSpec(107, mode).apply(image)).all()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["format=tflite"], "format=tflite: there are onnx, torch_export, safetensors, model_card."),
        (["format=onnx", "precision=int4"], "precision=int4: format=onnx supports float32, float16, int8."),
        (
            ["format=safetensors", "precision=int8"],
            "precision=int8: format=safetensors supports float32, float16.",
        ),
        (["format=onnx", "out=a.pt"], "out=a.pt: a file of format=onnx ends with .onnx."),
        (["format=onnx", "verify_count=1"], "verify_count=1: it must be greater than or equal to 2"),
        (
            ["format=onnx", "max_mae_increase=-1"],
            "max_mae_increase=-1: it must be greater than or equal to 0",
        ),
        (["format=onnx", "data.root=nowhere", "out=b.onnx"], HINT),
        (["format=onnx", "verify_images=nowhere", "out=b.onnx"], "no such file or folder"),
        (["format=onnx", "verify_images=a.onnx", "out=b.onnx"], "needs two readable images"),
        ([], "Missing required option format="),
    ],
)
def test_invalid_options_are_refused(home: Exports, options: list[str], says: str):
    assert says in home.export(*options, check=2).stderr
    assert not (home.path / "b.onnx").exists()


@pytest.mark.slow
def test_verification_uses_trained_images_if_needed(home: Exports, tmp_path: Path):
    """Under the published protocol, in a small table, every image is in both subsets."""
    small = [o for o in TRAINING if not o.startswith(("data.phantom.count", "trainer.max_epochs"))]
    options = ["data.phantom.count=80", "data.split_protocol=published", "trainer.max_epochs=1"]
    home.forks.run(*small, *options, "hydra.run.dir=leaky", cwd=tmp_path)
    command = [OWN, "ckpt=leaky", "format=torch_export", "out=x.pt2"]
    result = home.forks.start("boneage_pl.export", *command, cwd=tmp_path).wait(120)
    assert result.returncode == 0, result.stderr
    assert "also trained on, so their MAE is optimistic" in result.stdout


def test_nothing_is_overwritten(home: Exports, onnx: Path):
    before = onnx.read_bytes()
    assert "a.onnx exists already" in home.export("format=onnx", "out=a.onnx", check=2).stderr
    assert onnx.read_bytes() == before


def test_export_is_no_checkpoint(home: Exports, onnx: Path):
    assert (
        "cannot be read as a checkpoint"
        in home.predict(f"ckpt={onnx}", f"images={home.images}/1.png", "sex=F", check=2).stderr
    )


def test_different_resize_specs_are_refused(home: Exports):
    model = home.model()
    model.resize_specs = [ResizeSpec(107), ResizeSpec(111, "pad")]
    with pytest.raises(BoneAgeError, match=r"different inputs \(107, pad-111\)"):
        ExportModule(model)
