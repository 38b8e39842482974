import torch
from torchvision.transforms import v2

from boneage_pl.data.transforms.compose import Compose, hashed_uniform
from boneage_pl.data.transforms.geometric import RandomHorizontalFlip

IMAGES = torch.randint(0, 256, (3, 1, 8, 9), dtype=torch.uint8)


def keys(count: int) -> torch.Tensor:
    return torch.randint(0, 2**53, (count,), generator=torch.Generator().manual_seed(0))


def test_flip_uses_upper_half_of_key():
    mirrored = Compose([RandomHorizontalFlip(0.5)])(IMAGES, torch.tensor([0, 2**52, 2**52 - 1]))
    assert torch.equal(mirrored[1], IMAGES[1])
    assert torch.equal(mirrored[::2], IMAGES[::2].flip(3))


def test_hashed_numbers_are_uniform_and_independent():
    numbers = hashed_uniform(keys(100_000), 5).double()
    assert numbers.min() >= 0
    assert numbers.max() < 1
    quarters = torch.stack([numbers.mul(4).long().eq(q).double().mean(0) for q in range(4)])
    torch.testing.assert_close(quarters, torch.full_like(quarters, 0.25), atol=0.006, rtol=0)
    correlated = torch.corrcoef(torch.cat([numbers, numbers.roll(1, 0)], 1).T) - torch.eye(10)
    assert correlated.abs().max() < 0.015


def test_keys_differing_in_one_bit_differ():
    one, other = hashed_uniform(keys(1000), 3), hashed_uniform(keys(1000) ^ 1, 3)
    assert (one[:, 0] == other[:, 0]).all()  # of its upper bits
    assert (one[:, 1:] != other[:, 1:]).all()


def test_transforms_get_their_own_numbers():
    given = []

    class Shift:
        num_random = 2

        def __call__(self, images: torch.Tensor, random: torch.Tensor) -> torch.Tensor:
            given.append(random)
            return images

    steps = {"a": Shift(), "off": None, "blur": v2.GaussianBlur(3), "b": RandomHorizontalFlip(), "c": Shift()}
    Compose.from_config(steps)(IMAGES, keys(3))
    numbers = hashed_uniform(keys(3), 5)
    assert torch.equal(torch.cat(given, 1), numbers[:, [0, 1, 3, 4]])
