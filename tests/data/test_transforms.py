import torch
from torchvision.transforms import v2

from boneage_pl.data.transforms import IMAGENET_MEAN, IMAGENET_STD, network_input, unnormalise

EVERY_GRAY = torch.arange(256, dtype=torch.uint8).view(1, 1, 8, 32)


def test_every_gray_value_is_normalised_as_torchvision_does_to_the_bit():
    theirs = v2.Compose(
        [v2.RGB(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    )(EVERY_GRAY)
    ours = network_input(EVERY_GRAY)
    assert torch.equal(ours, theirs)
    assert ours.is_contiguous(memory_format=torch.channels_last)


def test_only_the_marked_images_are_flipped():
    images = torch.randint(0, 256, (3, 1, 8, 9), dtype=torch.uint8)
    seen = network_input(images, torch.tensor([True, False, True]))
    plain = network_input(images)
    assert torch.equal(seen[1], plain[1])
    assert torch.equal(seen[::2], plain[::2].flip(3))


def test_unnormalise_undoes_the_normalisation():
    back = unnormalise(network_input(EVERY_GRAY))
    torch.testing.assert_close(back, EVERY_GRAY.expand(-1, 3, -1, -1) / 255)
