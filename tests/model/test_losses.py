import pytest
import torch
from torch.distributions import Normal

from boneage_pl.errors import BoneAgeError
from boneage_pl.model.losses import AgeDistributionLoss


def logits(means: list[float], deviation: float) -> torch.Tensor:
    centers = torch.arange(276) - 17.5
    return torch.stack([Normal(mean, deviation).log_prob(centers) for mean in means])


def output(numbers: list[float], means: list[float], deviation: float = 5.0) -> torch.Tensor:
    return torch.cat([torch.tensor(numbers).unsqueeze(1), logits(means, deviation)], 1)


def test_decode_averages_regression_and_distribution():
    found = output([100.0, 50.0], [120.0, 60.0])
    for weight, expected in ((0.5, [110.0, 55.0]), (0.0, [120.0, 60.0]), (1.0, [100.0, 50.0])):
        months = AgeDistributionLoss(regression_weight=weight).decode_months(found)
        torch.testing.assert_close(months, torch.tensor(expected), atol=0.02, rtol=0)


def test_perfect_network_is_unbiased_at_both_ends():
    ages = torch.tensor([1.0, 4.0, 12.0, 120.0, 228.0, 240.0])
    loss = AgeDistributionLoss()
    labels = (
        -0.5 * ((loss.centers - ages.unsqueeze(1)) / loss.label_sigma) ** 2
    )  # the optimum of cross-entropy
    months = loss.decode_months(torch.cat([ages.unsqueeze(1), labels], 1))
    torch.testing.assert_close(months, ages, atol=0.02, rtol=0)


def test_std_is_of_the_distribution():
    torch.testing.assert_close(
        AgeDistributionLoss().std(output([0.0, 0.0], [120.0, 60.0], 9.0)),
        torch.tensor([9.0, 9.0]),
        atol=0.05,
        rtol=0,
    )


def test_loss_is_least_at_truth():
    loss = AgeDistributionLoss(label_sigma=5.0)
    right = loss(output([120.0], [120.0]), torch.tensor([120.0]))
    for number, mean in ((110.0, 120.0), (120.0, 110.0)):
        assert loss(output([number], [mean]), torch.tensor([120.0])) > right + 0.1
    entropy = Normal(0.0, 5.0).entropy()
    assert right == pytest.approx(0.5 * float(entropy), abs=0.01)


def test_loss_trains_from_scratch():
    torch.manual_seed(0)
    free = torch.zeros(3, 277, requires_grad=True)
    ages, loss = torch.tensor([3.0, 100.0, 230.0]), AgeDistributionLoss(regression_weight=0)
    optimizer = torch.optim.Adam([free], 0.5)
    for _ in range(200):
        optimizer.zero_grad()
        loss(free, ages).backward()
        optimizer.step()
    torch.testing.assert_close(loss.decode_months(free.detach()), ages, atol=0.5, rtol=0)


def test_loss_rejects_wrong_output_shape():
    with pytest.raises(
        BoneAgeError, match=r"\[2, 1\].*needs .*277.*\n.*model=backbone model.num_outputs=277"
    ):
        AgeDistributionLoss().decode_months(torch.zeros(2, 1))


@pytest.mark.parametrize("wrong", [{"label_sigma": 0}, {"regression_weight": 2}, {"num_bins": 1}])
def test_invalid_parameters_are_refused(wrong: dict):
    with pytest.raises(ValueError, match="Input should be"):
        AgeDistributionLoss(**wrong)
