from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import Inception_V3_Weights, inception_v3

from boneage_pl.errors import BoneAgeError
from boneage_pl.model.inception import InceptionRegressor, feature_map_side
from boneage_pl.model.input_spec import InputSpec


def shapes_of(network: InceptionRegressor, image: torch.Tensor) -> dict[str, tuple[int, ...]]:
    """Return the output shape of each named layer for one image."""
    shapes: dict[str, tuple[int, ...]] = {}
    layers = {
        "Mixed_7c": network.backbone.Mixed_7c,
        "avgpool": network.backbone.avgpool,
        "dropout": network.backbone.dropout,
        "fc": network.backbone.fc,
        "sex": network.sex,
        "hidden": network.hidden,
    }
    for name, layer in layers.items():
        layer.register_forward_hook(lambda _m, _i, out, name=name: shapes.update({name: tuple(out.shape)}))
    network.hidden[0].register_forward_pre_hook(lambda _m, args: shapes.update(joined=tuple(args[0].shape)))
    with torch.no_grad():
        shapes["age"] = tuple(network(image, torch.ones(len(image))).shape)
    return shapes


def test_published_shapes_at_500_pixels():
    network = InceptionRegressor(500).eval()
    assert shapes_of(network, torch.rand(1, 3, 500, 500)) == {
        "Mixed_7c": (1, 2048, 14, 14),
        "avgpool": (1, 2048, 7, 7),
        "dropout": (1, 100352),
        "fc": (1, 100352),
        "sex": (1, 32),
        "joined": (1, 100384),
        "hidden": (1, 1000),
        "age": (1, 1),
    }
    assert [type(layer) for layer in network.hidden] == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU]
    assert network.backbone.AuxLogits is None
    assert isinstance(network.backbone.avgpool, nn.MaxPool2d)


@pytest.mark.parametrize("size", [107, 128, 171, 299])
def test_head_width_follows_image_size(size: int):
    shapes = shapes_of(InceptionRegressor(size).eval(), torch.rand(1, 3, size, size))
    side = feature_map_side(size)
    assert shapes["Mixed_7c"] == (1, 2048, side, side)
    assert shapes["joined"] == (1, 2048 * (side // 2) ** 2 + 32)


def test_too_small_image_is_refused():
    assert feature_map_side(107) == 2
    with pytest.raises(BoneAgeError, match=r"image_size=106 is too small for the 2 × 2 max-pool.*\n.*107"):
        InceptionRegressor(106)


def test_sex_changes_output():
    network = InceptionRegressor(107)  # in training mode, in which features of random weights have order one
    image = torch.rand(1, 3, 107, 107).expand(2, -1, -1, -1)
    with torch.no_grad():
        girl, boy = network(image, torch.tensor([0.0, 1.0]))
    assert girl != boy


def test_last_layer_is_float32_under_autocast():
    network = InceptionRegressor(107).eval()
    with torch.no_grad():
        network.age.bias.fill_(180.0)
        network.age.weight.mul_(0.01)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        months = network(torch.rand(8, 3, 107, 107), torch.ones(8)).squeeze(1)
    assert months.dtype == torch.float32
    # bfloat16 has steps of a month near 180, so all predictions would be equal
    assert not torch.equal(months, months.bfloat16().float())


def test_imagenet_weights_by_name_and_file_are_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`imagenet` finds the file in torch's cache; both have the normalization of the weights."""
    original = inception_v3(weights=None, init_weights=False).eval()
    torch.save(original.state_dict(), tmp_path / "x.pth")
    monkeypatch.setattr("boneage_pl.model.inception.fetch_file", lambda *_: tmp_path / "x.pth")
    network = InceptionRegressor(107, weights="imagenet").eval()
    other = InceptionRegressor(107, weights=str(tmp_path / "x.pth"))
    assert network.input == other.input
    both = (n.backbone.state_dict() for n in (network, other))
    for ours, theirs in zip(*(weights.values() for weights in both), strict=True):
        assert torch.equal(ours, theirs)

    pixels = torch.rand(1, 3, 107, 107)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (network.input.mean, network.input.std))
    with torch.no_grad():
        ours = network.backbone.Conv2d_1a_3x3((pixels - mean) / std)
        theirs = original.Conv2d_1a_3x3(pixels * 2 - 1)  # as the weights were trained: [0, 1] → [-1, 1]
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert InceptionRegressor(107).input == InputSpec()


@pytest.mark.parametrize(("normalization", "mean"), [(None, 0.485), ("imagenet", 0.485), ("inception", 0.5)])
def test_normalization_is_configurable(normalization: Any, mean: float):
    assert InceptionRegressor(107, hidden_features=8, normalization=normalization).input.mean[0] == mean
    with pytest.raises(ValueError, match="should be 'imagenet' or 'inception'"):
        InceptionRegressor(107, normalization="none")  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, 1000, 4_000_000])
def test_damaged_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int):
    file = tmp_path / "hub" / "checkpoints" / Inception_V3_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[-1]
    file.parent.mkdir(parents=True)
    torch.save({"a": torch.zeros(1_000_000)}, file)
    file.write_bytes(file.read_bytes()[:size])
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(BoneAgeError, match=r"inception_v3_google-0cc3c7bd.pth is damaged.*\nDelete it"):
        InceptionRegressor(107, weights="imagenet")


def test_last_layer_is_float32_with_bfloat16_weights():
    network = InceptionRegressor(107, hidden_features=8).eval().bfloat16()
    with torch.no_grad():
        months = network(torch.rand(1, 3, 107, 107).bfloat16(), torch.ones(1))
    assert months.dtype == torch.float32
