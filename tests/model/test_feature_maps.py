"""Which feature maps of a network are found: those on the path of the whole image."""

import pytest
import torch
from torch import Tensor, nn

from boneage_pl.model.feature_maps import (
    CELLS_PER_SIDE,
    FeatureHook,
    LayerReached,
    feature_map_sizes,
    gradcam_layer,
    ood_layer,
)
from boneage_pl.model.inception import InceptionRegressor
from tests.helpers.tiny_models import Plain, Tiny


@pytest.mark.parametrize(
    ("side", "early", "late"),
    [(128, ("Conv2d_4a_3x3", 28), ("Mixed_5d", 13)), (500, ("Conv2d_4a_3x3", 121), ("Mixed_7c", 14))],
)
def test_layers_of_published_network(side: int, early: tuple[str, int], late: tuple[str, int]):
    network = InceptionRegressor(side, hidden_features=4).eval()
    maps = feature_map_sizes(network, side)
    for found, (name, cells) in ((ood_layer(network, side), early), (gradcam_layer(network, side), late)):
        assert found == f"backbone.{name}"
        assert maps[found] == cells
    assert not any("branch" in name for name in maps)  # a branch is not the whole path


def test_layers_of_custom_network():
    network = Tiny(107).eval()
    assert ood_layer(network, 107) == "backbone.2"  # in sequence: each is the whole path
    assert gradcam_layer(network, 107) == "backbone.2"
    none = Plain(107, 1, True)
    assert feature_map_sizes(none, 107) == {}
    assert (ood_layer(none, 107), gradcam_layer(none, 107)) == (None, None)


def test_feature_hook_stores_and_releases():
    network = Tiny(107).eval()
    image, male = torch.rand(3, 3, 107, 107), torch.zeros(3)
    with FeatureHook(network, "backbone.0") as tap, torch.no_grad():
        network(image, male)
        kept: Tensor = tap.features
        expected = nn.AdaptiveAvgPool2d(CELLS_PER_SIDE)(network.backbone[0](image)).flatten(1)
        assert torch.equal(kept, expected)
    network(image[:1], male[:1])
    assert len(tap.features) == 3
    with FeatureHook(network, "backbone.0", stop=True) as early, torch.no_grad(), pytest.raises(LayerReached):
        network(image, male)
    assert torch.equal(early.features, kept)
    with FeatureHook(network, "age") as tap, torch.no_grad():
        network(image, male)
    assert tap.features.numel() == 0  # without a feature map
