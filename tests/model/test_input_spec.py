import pytest
import torch
from torchvision.transforms import v2

from boneage_pl.model.input_spec import IMAGENET_MEAN, IMAGENET_STD, InputSpec, Normalize, denormalize

EVERY_GRAY = torch.arange(256, dtype=torch.uint8).view(1, 1, 8, 32)


def test_normalization_equals_torchvision_bitwise():
    theirs = v2.Compose(
        [v2.RGB(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    )(EVERY_GRAY)
    ours = Normalize(InputSpec())(EVERY_GRAY)
    assert torch.equal(ours, theirs)
    assert ours.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("expected", [InputSpec(), InputSpec(mean=(0.5,), std=(0.25,))])
def test_float_images_are_normalized_alike(expected: InputSpec):
    normalize = Normalize(expected)
    whole, floating = normalize(EVERY_GRAY), normalize(EVERY_GRAY / 255)
    assert whole.shape == floating.shape == (1, expected.channels, 8, 32)
    assert floating.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(floating, whole)
    torch.testing.assert_close(denormalize(whole, expected), EVERY_GRAY[:, 0] / 255)
