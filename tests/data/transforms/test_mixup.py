import pytest
import torch

from boneage_pl.data.dataset import Batch
from boneage_pl.data.transforms.mixup import CMixup


def batch(ages: list[float], male: list[int]) -> Batch:
    """Images whose every pixel is their age: what is mixed of one is mixed of the other."""
    bone_age = torch.tensor(ages)
    image = bone_age.view(-1, 1, 1, 1).expand(-1, 3, 4, 4).clone()
    rows = torch.arange(len(ages))
    return Batch(image=image, key=rows, male=torch.tensor(male).float(), bone_age=bone_age, row=rows)


def random(count: int) -> torch.Tensor:
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(0))


def test_mixup_mixes_images_and_ages_alike():
    ages = torch.rand(400, generator=torch.Generator().manual_seed(1)) * 200
    male = [k % 2 for k in range(400)]
    boys = torch.tensor(male).bool()
    ages = torch.where(boys, ages.round() + 0.25, ages.round())  # a boy's age differs from a girl's
    before = batch(ages.tolist(), male)
    after = CMixup(p=1, sigma=3)(before, random(400))
    torch.testing.assert_close(after["image"][:, 0, 0, 0], after["bone_age"])
    moved = (after["bone_age"] - before["bone_age"]).abs()
    assert moved.max() < 12  # four deviations
    assert (moved > 0).float().mean() > 0.7  # others have a partner of their very age
    assert torch.equal(after["male"], before["male"])


def test_mixup_leaves_unselected_images():
    before = batch([100.0, 101.0, 102.0, 103.0] * 50, [1] * 200)
    after = CMixup(p=0.3, sigma=50)(before, random(200))
    changed = (after["bone_age"] != before["bone_age"]).float().mean()
    assert 0.12 < changed < 0.35


def test_mixup_leaves_image_without_partner():
    before = batch([10.0, 200.0, 10.0], [0, 0, 1])
    after = CMixup(p=1, sigma=6)(before, random(3))
    assert torch.equal(after["image"], before["image"])
    assert torch.equal(after["bone_age"], before["bone_age"])


def test_mixup_weight_is_beta_2_2():
    own = 0.5 - torch.sin(torch.asin(1 - 2 * torch.linspace(0.0005, 0.9995, 1000)) / 3)
    before = batch([0.0, 1.0], [1, 1])
    drawn = torch.tensor([[0.5, 0.3, 0.0], [0.5, 0.3, 0.0]])
    after = CMixup(p=1, sigma=50)(before, drawn)
    assert after["bone_age"][1] == pytest.approx(float(own[299]), abs=2e-3)
    assert own.mean() == pytest.approx(0.5, abs=1e-3)
    assert own.var() == pytest.approx(0.05, abs=1e-3)  # of Beta(2, 2)


@pytest.mark.parametrize("wrong", [{"p": 2}, {"sigma": 0}])
def test_mixup_invalid_parameters_are_refused(wrong: dict):
    with pytest.raises(ValueError, match="Input should be"):
        CMixup(**wrong)
