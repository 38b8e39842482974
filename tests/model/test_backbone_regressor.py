from typing import Any

import pytest
import torch

from boneage_pl.errors import BoneAgeError
from boneage_pl.model.backbone_regressor import BackboneRegressor

BACKBONES = [
    "resnet18",
    "mobilenetv3_small_050",
    "test_resnet",
    "tf_efficientnet_lite0",
    "test_vit",
    pytest.param("vgg11", marks=pytest.mark.slow),
]
ANY_SIZE = {"test_vit": {"dynamic_img_size": True}}


def make(backbone: str = "test_resnet", image_size: int = 96, **choices: Any) -> BackboneRegressor:
    torch.manual_seed(0)
    return BackboneRegressor(backbone, image_size, **{"backbone_kwargs": ANY_SIZE.get(backbone), **choices})


@pytest.mark.parametrize("backbone", BACKBONES)
def test_any_image_size_shares_weights(backbone: str):
    network = make(backbone)
    with torch.device("meta"):
        other = make(backbone, 64)
    other.load_state_dict(network.state_dict(), assign=True)
    for side, model in ((96, network.train()), (64, other.eval())):
        months = model(torch.rand(2, 3, side, side), torch.tensor([0.0, 1.0]))
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


@pytest.mark.parametrize("hidden", [0, 8])
def test_sex_reaches_output(hidden: int):
    network = make(hidden_features=hidden).eval()
    girl, boy = network(torch.rand(1, 3, 96, 96).expand(2, -1, -1, -1), torch.tensor([0.0, 1.0]))
    assert girl != boy


def test_one_channel_equals_three_equal_ones():
    three, one = (make("efficientnet_lite0", weights="imagenet", channels=n).eval() for n in (3, 1))
    assert one.input.channels == 1
    gray = torch.rand(1, 1, 96, 96) * 2 - 1
    with torch.no_grad():
        features, same = three.backbone(gray.expand(-1, 3, -1, -1)), one.backbone(gray)
    torch.testing.assert_close(features, same, atol=1e-4, rtol=1e-4)


def test_constructor_options_reach_backbone():
    assert make(backbone_kwargs={"global_pool": "catavgmax"}).hidden[0].p == 0
    assert make(backbone_kwargs={"global_pool": "catavgmax"}).age.in_features > make().age.in_features


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"backbone": "resnet81"}, "timm has no such network.*Did you mean .*resnet18"),
        ({"backbone": "hf-hub:someone/resnet18"}, "timm has no such network"),
        ({"backbone": "resnet18.local-dir:/tmp"}, "timm has no such network"),
        ({"backbone": "resnet18.nothing"}, r"resnet18\.nothing cannot be built"),
        ({"backbone_kwargs": {"blocks": 3}}, "cannot be built: .*blocks"),
        ({"backbone_kwargs": {"checkpoint_path": "x.pth"}}, r"model\.backbone_kwargs\.checkpoint_path"),
        ({"backbone_kwargs": {"pretrained_cfg": {"url": "x"}}}, r"model\.backbone_kwargs\.pretrained_cfg"),
        (
            {"backbone": "vit_tiny_patch16_224"},
            "vit_tiny_patch16_224 does not support images of 96 × 96 pixels",
        ),
    ],
)
def test_invalid_choices_are_refused(choices: dict[str, Any], words: str):
    with pytest.raises(BoneAgeError, match=f"(?s){words}"):
        make(**choices)


@pytest.mark.parametrize("wrong", [{"channels": 2}, {"hidden_features": -1}, {"output_std": 0}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any]):
    with pytest.raises(ValueError, match="Input should be"):
        make(**wrong)
