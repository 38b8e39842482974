from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from boneage_pl.errors import BoneAgeError
from boneage_pl.model.backbone_regressor import BackboneRegressor
from boneage_pl.model.inception import InceptionRegressor
from boneage_pl.model.layers import GeM, is_depthwise
from boneage_pl.model.optim import build_optimizer_factory

# One of each library and of each way that a network ends.
BACKBONES = [
    "resnet18",
    "mobilenet_v3_small",
    "googlenet",
    "timm/test_resnet",
    "test_efficientnet",
    "test_vit",
]
ANY_SIZE = {"test_vit": {"dynamic_img_size": True}}


def make(backbone: str = "timm/test_resnet", image_size: int = 96, **choices: Any) -> BackboneRegressor:
    torch.manual_seed(0)
    return BackboneRegressor(backbone, image_size, backbone_kwargs=ANY_SIZE.get(backbone), **choices)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_any_image_size_shares_weights(backbone: str):
    network = make(backbone)
    with torch.device("meta"):
        other = make(backbone, 64)
    other.load_state_dict(network.state_dict(), assign=True)
    for side, asked in ((96, network.train()), (64, other.eval())):
        months = asked(torch.rand(2, 3, side, side), torch.tensor([0.0, 1.0]))
        assert months.shape == (2, 1)
        assert months.dtype == torch.float32
        assert months[0] != months[1]
        assert not torch.isnan(months).any()


def test_output_starts_at_mean_in_units_of_std():
    image, male = torch.rand(4, 3, 96, 96), torch.tensor([0.0, 1.0, 0.0, 1.0])
    with torch.no_grad():
        plain = make().eval()(image, male)
        months = make(output_mean=127, output_std=41).eval()(image, male)
    torch.testing.assert_close(months, 127 + 41 * plain)


@pytest.mark.parametrize("sex", ["concat", "film"])
@pytest.mark.parametrize("hidden", [0, 8])
def test_sex_reaches_output(sex: str, hidden: int):
    network = make(sex_fusion=sex, hidden_features=hidden).eval()
    image, male = torch.rand(1, 3, 96, 96).expand(2, -1, -1, -1), torch.tensor([0.0, 1.0])
    girl, boy = network(image, male)
    if sex == "film":  # alike at the start, and learned
        torch.testing.assert_close(girl, boy)
        (girl - boy).backward()
        assert next(network.sex.parameters()).grad.abs().sum() > 0
    else:
        assert girl != boy


def test_gem_is_mean_at_one_and_nears_maximum():
    maps = torch.rand(2, 5, 3, 3)
    pool = GeM()
    with torch.no_grad():
        assert pool(maps).shape == (2, 5, 1, 1)
        pool.power.fill_(1)
        torch.testing.assert_close(pool(maps), maps.mean((2, 3), keepdim=True))
        pool.power.fill_(200)
        torch.testing.assert_close(pool(maps), maps.amax((2, 3), keepdim=True), atol=0.02, rtol=0)


@pytest.mark.parametrize("backbone", ["resnet18", "timm/test_resnet"])
def test_gem_pooling_network(backbone: str):
    network = make(backbone, pooling="gem")
    assert [type(m) for m in network.modules()].count(GeM) == 1
    network(torch.rand(2, 3, 96, 96), torch.ones(2)).sum().backward()
    (pool,) = (m for m in network.modules() if isinstance(m, GeM))
    assert pool.power.grad is not None
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(network(torch.rand(2, 3, 96, 96), torch.ones(2))).all()


@pytest.mark.parametrize("pooling", ["mean", "gem"])
def test_backbone_stages_have_own_rates(pooling: str):
    node = OmegaConf.create({"_target_": "torch.optim.AdamW", "lr": 1.0, "layer_decay": 0.5})
    network = make("test_efficientnet", pooling=pooling)
    rates = {group["lr"] for group in build_optimizer_factory(node)(network).param_groups}
    assert len(rates) > 4
    assert max(rates) == 1


def test_one_channel_equals_three_equal_ones():
    three, one = (make("efficientnet_lite0", weights="imagenet", channels=n).eval() for n in (3, 1))
    assert one.input.channels == 1
    gray = torch.rand(1, 1, 96, 96) * 2 - 1
    with torch.no_grad():
        features, same = three.backbone(gray.expand(-1, 3, -1, -1)), one.backbone(gray)
    torch.testing.assert_close(features, same, atol=1e-4, rtol=1e-4)


def test_depthwise_convolutions_are_detected():
    assert is_depthwise(make("mobilenet_v3_small"))
    assert not is_depthwise(make("resnet18"))
    assert not is_depthwise(InceptionRegressor(107))


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"backbone": "resnet81"}, "neither .* has a network of that name.*Near it: .*resnet18"),
        ({"backbone": "torchvision/test_resnet"}, "neither .* has a network of that name"),
        ({"backbone": "squeezenet1_0"}, "squeezenet1_0 has not one last layer"),
        ({"backbone": "vit_b_16"}, r"vit_b_16 does not take images of 96 × 96 pixels: Wrong image height"),
        ({"backbone": "densenet121", "pooling": "gem"}, "densenet121 pools in a way of its own"),
        ({"pooling": "max"}, r"model.pooling=max: it must be mean or gem"),
        ({"sex_fusion": "ignored"}, r"model.sex_fusion=ignored: it must be concat or film"),
        ({"channels": 2}, r"model.channels=2: it must be 3 or 1"),
        ({"hidden_features": -1}, "model.hidden_features=-1"),
    ],
)
def test_invalid_choices_are_refused(choices: dict[str, Any], words: str):
    with pytest.raises(BoneAgeError, match=f"(?s){words}"):
        make(**choices)


def test_missing_timm_names_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(
        BoneAgeError, match=r"efficientnet_lite0: .*\n.*pip install 'boneage_pl\[pretrained\]'"
    ):
        make("efficientnet_lite0")
    make("resnet18")
