"""The command `predict`."""

import csv
import doctest
import io
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from pydicom import dcmread
from torch import nn

from boneage_pl import BoneAgePredictor
from boneage_pl.data.images.radiograph import Radiograph
from boneage_pl.data.images.resize import ResizeSpec
from boneage_pl.data.transforms.compose import Compose
from boneage_pl.data.transforms.geometric import CropToContent, Resize
from boneage_pl.prediction.predictor import _invert
from boneage_pl.prediction.types import Prediction, PredictionRequest, PredictionResult
from tests.helpers.dicom_files import write_dicom
from tests.helpers.fork_server import Forks
from tests.helpers.trained_run import MODEL, OWN, Home, home_of
from tests.stress.fuzzing import mutated, random_image

Rows = list[dict[str, str]]


def table(text: str) -> Rows:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Home:
    return home_of(Home, tmp_path_factory, forks)


def test_validation_predictions_match_training(home: Home, tmp_path: Path):
    validation = home.record["validation"]
    rows = pd.DataFrame({"id": validation["id"], "sex": ["M" if m else "F" for m in validation["male"]]})
    rows["path"] = [str(home.images / f"{i}.png") for i in rows["id"]]
    rows.to_csv(tmp_path / "table.csv", index=False)
    home.predict(f"images={tmp_path}/table.csv", f"out={tmp_path}/out.csv")
    predictions = pd.read_csv(tmp_path / "out.csv")
    assert predictions["sex"].tolist() == rows["sex"].tolist()
    assert np.abs(predictions["months"] - validation["predicted"]).max() < 1e-3
    inside = pd.Series(validation["bone_age"]).between(predictions["lower"], predictions["upper"])
    assert 0.88 <= inside.mean() <= 0.95  # they set the limit
    assert predictions["flags"].notna().mean() <= 0.05


def test_inputs_may_be_file_list_folder_pattern_or_table(home: Home, tmp_path: Path):
    names = sorted(p.name for p in home.images.iterdir())[:3]
    (tmp_path / "hands" / "deep").mkdir(parents=True)
    for name in names:
        shutil.copy(home.images / name, tmp_path / "hands" / "deep" / name)
    pd.DataFrame({"id": [Path(n).stem for n in names]}).to_csv(tmp_path / "ids.csv", index=False)
    files = [f"hands/deep/{name}" for name in names]
    ways = [f"images=[{','.join(files)}]", "images=hands", "images=hands/**/*.png", "images=ids.csv"]
    found = [table(home.predict(way, "sex=F", cwd=tmp_path).stdout) for way in ways]
    assert [[Path(row["path"]).name for row in rows] for rows in found] == [names] * 4
    assert all([row["months"] for row in rows] == [row["months"] for row in found[0]] for rows in found)
    alone = table(home.predict(f"images={files[0]}", "sex=F", cwd=tmp_path).stdout)
    assert abs(float(alone[0]["months"]) - float(found[0][0]["months"])) < 1e-3


def test_dicom_files_are_found_by_content(home: Home, tmp_path: Path):
    pixels = np.asarray(Image.open(home.images / "1.png").convert("L"))
    names = ["1.2.840.113619.2.5.17", "1.2.840.113619.2.5.18", "IM000001"]
    for name in names:
        write_dicom(tmp_path / name, pixels)
    (tmp_path / "notes.txt").write_text("of no interest")
    rows = table(home.predict(f"images={tmp_path}", "dicom_sr=true").stdout)
    assert [Path(row["path"]).name for row in rows] == names
    assert all((tmp_path / f"{name}_F.sr.dcm").is_file() for name in names)


def test_bad_file_does_not_stop_others(home: Home, tmp_path: Path):
    good = sorted(home.images.iterdir())[:2]
    for at, file in enumerate(good):
        shutil.copy(file, tmp_path / f"{at}.png")
    (tmp_path / "broken.png").write_bytes(good[0].read_bytes()[:500])
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "words.tif").write_text("no image")
    Image.new("L", (100, 100)).save(tmp_path / "black.png")
    result = home.predict(f"images={tmp_path}", "sex=M", check=3)
    rows = {Path(row["path"]).name: row for row in table(result.stdout)}
    assert len(rows) == 6
    assert [name for name, row in rows.items() if row["months"]] == ["0.png", "1.png"]
    assert "cut short" in rows["broken.png"]["error"]
    assert "empty" in rows["empty.jpg"]["error"]
    assert "none of PNG, JPEG" in rows["words.tif"]["error"]
    assert rows["black.png"]["flags"] == "blank_image"


def test_sex_comes_from_table_option_or_file(home: Home, tmp_path: Path):
    pixels = np.asarray(Image.open(sorted(home.images.iterdir())[0]))
    write_dicom(tmp_path / "girl.dcm", pixels)
    write_dicom(tmp_path / "none.dcm", pixels, PatientSex=None)
    (tmp_path / "t.csv").write_text("path,sex\ngirl.dcm,M\ngirl.dcm,\nnone.dcm,\nnone.dcm,unknown\nx.dcm,F\n")
    rows = table(home.predict(f"images={tmp_path}/t.csv", check=3).stdout)
    assert [row["sex"] for row in rows] == ["M", "F", "", "F", "M", "F"]
    assert "unknown sex" in rows[2]["error"]
    assert rows[5]["error"]
    both = table(home.predict(f"images={tmp_path}/none.dcm", "sex=unknown").stdout)
    assert [row["sex"] for row in both] == ["F", "M"]
    assert both[0]["months"] != both[1]["months"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["images=nowhere"], "no such file or folder"),
        (["images=empty"], "no radiographs found"),
        (["images="], "images= is empty"),
        (["images=x.png", "ckpt=[]"], "at least one checkpoint is needed"),
        (["images=x.png", "include_patient_id=no"], "it must be true or false"),
        (["images=*.nothing"], "no match"),
        (["images=a.csv"], "columns.id="),
        (["images=x.png", "sex=boy"], "it must be F, M or unknown"),
        ([f"images={'x' * 300}"], f"images={'x' * 60}…: File name too long"),
        (["images=x.png", "interval_level=1"], "interval_level=1"),
        (["images=x.png", "tta=up"], "tta=up"),
        (["images=x.png", "format=sr"], "Could not override 'format'"),
        (["images=x.png", "out=a.csv"], "exists already"),
        (["images=x.png", "out=predictions.xlsx"], "must end with .csv"),
        (["images=x.png", "batch_size=0"], "batch_size=0"),
    ],
)
def test_invalid_options_are_refused(home: Home, tmp_path: Path, options: list[str], words: str):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.csv").write_text("name,age\nx,1\n")
    Image.new("L", (100, 100)).save(tmp_path / "x.png")
    result = home.predict(*options, check=2, cwd=tmp_path)
    assert words in result.stderr
    assert result.stdout == ""
    assert (tmp_path / "x.png").stat().st_size > 0


def test_non_hands_are_flagged(home: Home, tmp_path: Path):
    from skimage import data

    hand = Image.open(home.images / f"{home.record['validation']['id'][0]}.png").convert("L")
    rng = np.random.default_rng(0)
    images = {
        "cat": Image.fromarray(data.chelsea()),
        "page": Image.fromarray(data.page()),
        "noise": Image.fromarray(rng.integers(0, 256, (128, 128), dtype=np.uint8)),
        "nearly_black": Image.fromarray(rng.integers(0, 3, (128, 128), dtype=np.uint8)),
        "upside_down": hand.rotate(180),
        "hand": hand,
    }
    for name, image in images.items():
        image.save(tmp_path / f"{name}.png")
    Image.fromarray(255 - np.asarray(hand)).save(tmp_path / "negative.png")
    rows = {Path(r["path"]).stem: r for r in table(home.predict(f"images={tmp_path}", "sex=F").stdout)}
    assert rows.pop("hand")["flags"] == ""
    negative = rows.pop("negative")
    assert negative["flags"] == "inverted"
    assert "rotated" in rows.pop("upside_down")["flags"]
    assert all("out_of_distribution" in row["flags"] for row in rows.values()), rows
    predictions = {Path(a.path).stem: a for a in home.model().predict(str(tmp_path), "F")}
    plain = predictions["hand"].months  # the negative is inverted
    assert predictions["negative"].months == pytest.approx(plain, abs=1e-3)


def test_other_resolution_is_flagged(home: Home):
    validation = [home.images / f"{i}.png" for i in home.record["validation"]["id"]]
    blurred = [np.asarray(Image.open(p).convert("L").resize((48, 48)).resize((128, 128))) for p in validation]
    predictions = home.model().predict(blurred, "F")
    assert np.mean(["resolution_mismatch" in prediction.flags for prediction in predictions]) > 0.9


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_turned_hands_are_flagged(home: Home, turns: int):
    validation = [home.images / f"{i}.png" for i in home.record["validation"]["id"]]
    turned = [np.rot90(np.asarray(Image.open(path)), turns).copy() for path in validation]
    predictions = home.model().predict(turned, "F")
    assert np.mean(["rotated" in prediction.flags for prediction in predictions]) >= 0.95


def test_negative_is_inverted_before_it_is_padded():
    spec = ResizeSpec(64, "pad")
    film = Radiograph(Image.fromarray(np.full((64, 32), 255 - 40, np.uint8)))
    result = PredictionResult(PredictionRequest(film), Prediction(""), {spec: spec.apply(film.image)}, film)
    pixels = _invert(result).pixels[spec]
    assert (pixels[:, 20:44] == 40).all()
    assert (pixels[:, :12] == 0).all()


def test_ood_false_positive_rate(home: Home):
    """Few of 80 new phantoms are flagged; 80 validation images cannot guarantee 97.5 %."""
    split = home.record["split"]
    used = {*split["train"], *split["validation"]}
    fresh = sorted(p for p in home.images.iterdir() if p.stem not in used)
    assert len(fresh) >= 80
    predictions = home.model().predict([str(p) for p in fresh], "F")
    assert np.mean([bool(prediction.flags) for prediction in predictions]) < 0.12


def test_docstring_example_runs(home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    shutil.copy(home.images / "1.png", tmp_path / "hand.png")
    monkeypatch.chdir(tmp_path)
    names = {"model": home.model(), "np": np, "Image": Image}
    (example,) = doctest.DocTestFinder().find(BoneAgePredictor.predict, globs=names)
    assert doctest.DocTestRunner().run(example) == (0, 4)


def test_python_api_example(home: Home):
    model = home.model()
    girl, boy = model.predict(str(home.images / "1.png"), "unknown")
    assert (girl.sex, boy.sex) == ("F", "M")
    assert girl.lower <= girl.months <= girl.upper
    assert girl.years_months == f"{round(girl.months) // 12} y {round(girl.months) % 12} m"
    image = Image.open(home.images / "1.png")
    file = home.images / "1.png"
    several = model.predict([image, np.asarray(image), file.read_bytes(), file], ["F", "F", "F", "M"])
    assert [a.months for a in several] == pytest.approx([girl.months] * 3 + [boy.months], abs=1e-3)
    assert model.predict(b"no image", "F")[0].error
    assert "must be uint8 or uint16" in model.predict(np.ones((40, 40)), "F")[0].error
    with pytest.raises(ValueError, match="3 images and 2 sexes"):
        model.predict([image] * 3, ["F", "M"])


def test_tta_and_ensemble_are_averaged(home: Home, tmp_path: Path):
    file = str(home.images / "2.png")
    plain = home.model().predict(file, "F")[0]
    mirrored = home.model().predict(np.asarray(Image.open(file))[:, ::-1].copy(), "F")[0]
    both = home.model(tta="flip").predict(file, "F")[0]
    assert both.months == pytest.approx((plain.months + mirrored.months) / 2, abs=1e-3)
    assert home.model(tta=["flip", -5, 5]).predict(file, "F")[0].months != both.months
    content = torch.load(home.ckpt, weights_only=True)
    content["state_dict"]["inference.network.age.bias"] += 10
    content["boneage_pl"]["validation"]["predicted"] = [
        p + 10 for p in content["boneage_pl"]["validation"]["predicted"]
    ]
    torch.save(content, tmp_path / "other.ckpt")
    mean = BoneAgePredictor.load(
        [home.ckpt, tmp_path / "other.ckpt"], trusted_config={"model": {"_target_": MODEL}}
    )
    assert mean.predict(file, "F")[0].months == pytest.approx(plain.months + 5, abs=1e-2)


def test_checkpoint_without_ood_statistics_predicts_without_ood_flags(home: Home, tmp_path: Path):
    content = torch.load(home.ckpt, weights_only=True)
    del content["ood_statistics"]
    torch.save(content, tmp_path / "alone.ckpt")
    alone = BoneAgePredictor.load(tmp_path / "alone.ckpt", trusted_config={"model": {"_target_": MODEL}})
    assert alone.members[0].ood_detector is None
    assert alone.predict(str(home.images / "1.png"), "F")[0].months


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ({"layer": "nowhere"}, "cannot be read"),
        ({"layer": "age"}, "was not written by this"),
        ("x", "cannot be read"),
    ],
)
def test_tampered_ood_statistics_are_refused(home: Home, tmp_path: Path, spoil: dict | str, words: str):
    content = torch.load(home.ckpt, weights_only=True)
    content["ood_statistics"] = {**content["ood_statistics"], **spoil} if isinstance(spoil, dict) else spoil
    torch.save(content, tmp_path / "a.ckpt")
    command = [OWN, f"ckpt={tmp_path}/a.ckpt", f"images={home.images}/1.png", "sex=F"]
    result = home.forks.start("boneage_pl.predict", *command, cwd=home.path).wait(60)
    assert result.returncode == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_gradcam_is_drawn_over_transformed_image(home: Home, tmp_path: Path):
    from boneage_pl.prediction.gradcam import GradCAMWriter, grad_cam

    member = home.model().members[0]
    pixels = member.resize_spec.apply(Image.open(home.images / "3.png").convert("L"))
    assert (grad_cam(member, pixels, male=True).image == pixels).all()  # v1 has no validation transforms
    member.predictor.module.transforms = Compose([CropToContent()])
    framed = np.pad(pixels, 40, constant_values=90)
    cropped = grad_cam(member, framed, male=True).image
    assert cropped.shape == framed.shape
    expected = CropToContent()(torch.from_numpy(framed)[None, None])[0, 0].numpy()
    assert np.abs(cropped / 255 - expected).max() < 0.01
    assert np.abs(cropped - framed.astype(int)).mean() > 5
    prediction = Prediction("a.png", male=True, months=100.0)
    with Image.open(GradCAMWriter(tmp_path, member).write(prediction, framed)) as image:
        drawn = np.asarray(image.convert("L"), int)[:, : image.width // 2]
    assert (np.abs(drawn - 90) <= 2).mean() < 0.1  # 0.45 with the frame
    member.predictor.module.transforms = Compose([Resize(40)])
    maps = nn.Conv2d(3, 8, 5, 4), nn.Conv2d(8, 8, 3, 2)  # of 9 × 9 and 4 × 4 cells; of 107 pixels, 12 × 12
    member.predictor.module.network.backbone = nn.Sequential(*maps, nn.AdaptiveAvgPool2d(4))
    image, heatmap = grad_cam(member, pixels, male=True)
    assert (image.shape, heatmap.shape) == ((40, 40), (9, 9))


def test_gradcam_depends_on_weights(home: Home, tmp_path: Path):
    """Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018."""
    from boneage_pl.prediction.gradcam import grad_cam

    member = home.model().members[0]
    pixels = member.resize_spec.apply(Image.open(home.images / "3.png").convert("L"))
    before = grad_cam(member, pixels, male=True).heatmap
    assert (before == grad_cam(member, pixels, male=True).heatmap).all()
    torch.manual_seed(0)
    for layer in member.predictor.module.network.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    after = grad_cam(member, pixels, male=True).heatmap
    assert after.shape == before.shape
    assert abs(np.corrcoef(before.ravel(), after.ravel())[0, 1]) < 0.9
    home.predict(f"images={home.images}/3.png", "sex=F", f"gradcam_dir={tmp_path}/where")
    with Image.open(tmp_path / "where" / "3_F.png") as image:
        assert image.size[0] > 500


def test_dicom_sr_round_trips_without_names(home: Home, tmp_path: Path):
    from highdicom.sr import Comprehensive3DSR

    pixels = np.asarray(Image.open(home.images / "4.png").convert("L"))
    write_dicom(tmp_path / "a.dcm", pixels, InstitutionName="St. Elsewhere", StudyDescription="Jane's hand")
    Image.fromarray(pixels).save(tmp_path / "b.png")
    rows = table(home.predict(f"images={tmp_path}", "sex=F", "dicom_sr=true", check=3).stdout)
    assert "not a DICOM file" in rows[1]["error"]
    path = tmp_path / "a_F.sr.dcm"
    report = Comprehensive3DSR.from_dataset(dcmread(path))
    assert report.VerificationFlag == "UNVERIFIED"
    group = report.content.get_image_measurement_groups()[0]
    age = group.get_measurements()[0]
    assert (age.name.value, age.name.scheme_designator, age.unit.value) == ("37362-1", "LN", "mo")
    assert age.value == pytest.approx(float(rows[0]["months"]), abs=0.01)
    text = str(report)
    assert "boneage_pl v1" in text
    for secret in ("Doe", "SECRET", "20100301", "A-4711", "House", "Elsewhere", "Jane", "20200301"):
        assert secret not in text
    assert str(dcmread(tmp_path / "a.dcm").SOPInstanceUID) in text
    shutil.copy(path, tmp_path / "DICOMDIR")
    assert len(table(home.predict(f"images={tmp_path}", "sex=F").stdout)) == 2  # a report is not a radiograph
    again = table(home.predict(f"images={tmp_path}/a.dcm", "sex=F", "dicom_sr=true", check=3).stdout)
    assert "exists already" in again[0]["error"]
    path.unlink()
    both = table(
        home.predict(
            f"images={tmp_path}/a.dcm", "sex=unknown", "dicom_sr=true", "include_patient_id=true"
        ).stdout
    )
    assert [row["error"] for row in both] == ["", ""]
    assert (tmp_path / "a_M.sr.dcm").is_file()
    assert dcmread(path).PatientName == "Doe^Jane"


def test_mutated_files_are_handled(home: Home, tmp_path: Path):
    """Mutated image and DICOM files cause neither crashes nor hangs."""
    import random

    whole = write_dicom(tmp_path / "whole.dcm", np.asarray(Image.open(home.images / "1.png").convert("L")))
    folder = tmp_path / "mutated"
    folder.mkdir()
    for number in range(150):
        draw = random.Random(number)
        suffix, content = ("dcm", whole.read_bytes()) if number % 3 == 0 else ("png", random_image(draw))
        (folder / f"{number:03}.{suffix}").write_bytes(mutated(content, draw))
    result = home.forks.start(
        "boneage_pl.predict", OWN, "ckpt=outputs/a", f"images={folder}", "sex=F", cwd=home.path
    ).wait(120)
    assert result.returncode in (0, 3), result.stderr
    rows = table(result.stdout)
    assert len(rows) == 150
    assert all(bool(row["months"]) != bool(row["error"]) for row in rows)
    assert 20 < sum(bool(row["months"]) for row in rows) < 140


def test_odd_table_cells_are_rows_with_errors(home: Home, tmp_path: Path):
    (tmp_path / "t.csv").write_text(f"path,sex\n{'x' * 5000},F\n,F\n{home.images}/1.png,girlish\n../..,M\n")
    rows = table(home.predict(f"images={tmp_path}/t.csv", check=3).stdout)
    words = ["no file", "its path is empty", "invalid sex: use F, M or unknown", "no file"]
    assert all(word in row["error"] for word, row in zip(words, rows, strict=True)), rows


def test_interrupted_prediction_keeps_rows(home: Home, tmp_path: Path):
    names = "\n".join(str(p) for p in sorted(home.images.iterdir()) * 60)
    (tmp_path / "many.csv").write_text(f"path\n{names}\n")
    out = tmp_path / "out.csv"
    running = home.forks.start(
        "boneage_pl.predict", OWN, "ckpt=outputs/a", f"images={tmp_path}/many.csv", "sex=F", f"out={out}",
        cwd=home.path,
    )  # fmt: skip
    written = 0
    while running.poll() is None and written < 20:
        time.sleep(0.02)
        written = out.read_text().count("\n") if out.exists() else 0
    running.send_signal(signal.SIGINT)
    assert running.wait(60).returncode == 130
    rows = table(out.read_text())
    assert 20 <= written <= len(rows) + 1
    assert all(row["months"] for row in rows)
