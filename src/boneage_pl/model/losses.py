"""Losses beyond those of PyTorch."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from boneage_pl.errors import BoneAgeError


class AgeDistributionLoss(nn.Module):
    """A number of months, and beside it how likely each month is, learned together.

    The label is a normal distribution over the months (label distribution; Gao et al., IEEE TIP
    2017), which cross-entropy compares with the network's; the number by its absolute error. The answer is
    the mean of the two.

    Args:
        num_bins: M, how many months there are: the distribution is over the middles 0.5, 1.5, … from `first`.
        first: lowest month. Three standard deviations below 0, and as many above the oldest child, leave the
            labels whole: cut off, they would be biased towards the middle (1 month would mean 3.1).
        label_sigma: standard deviation of the label's distribution, in months.
        regression_weight: share of the number in loss and answer; 0 leaves the distribution alone, 1 the
            number.
        l1_scale: months of absolute error that weigh as much as 1 of cross-entropy.
    """

    def __init__(
        self,
        num_bins: int = 276,
        first: float = -18.0,
        label_sigma: float = 6.0,
        regression_weight: float = 0.5,
        l1_scale: float = 10.0,
    ) -> None:
        super().__init__()
        if num_bins < 2 or min(label_sigma, l1_scale) <= 0 or not 0 <= regression_weight <= 1:
            raise ValueError("num_bins < 2, label_sigma or l1_scale <= 0, or regression_weight not in [0, 1]")
        self.label_sigma, self.l1_scale = label_sigma, l1_scale
        self.regression_weight = regression_weight
        self.register_buffer("middles", torch.arange(num_bins) + (first + 0.5), persistent=False)

    middles: Tensor  # months [M]

    def decode_months(self, output: Tensor) -> Tensor:
        """Return the predictions in months: [B, 1 + M] → [B]."""
        number, logits = self._split_output(output)
        expected = logits.softmax(1) @ self.middles.to(logits.dtype)
        return self.regression_weight * number + (1 - self.regression_weight) * expected

    def std(self, output: Tensor) -> Tensor:
        """Return the standard deviation of each distribution, in months: [B, 1 + M] → [B]."""
        likely = self._split_output(output)[1].softmax(1)
        middles = self.middles.to(likely.dtype)
        expected = likely @ middles
        return (likely @ middles.square() - expected.square()).clamp(min=0).sqrt()

    def forward(self, output: Tensor, bone_age: Tensor) -> Tensor:
        """Return the loss: [B, 1 + M] and months [B] → one number."""
        number, logits = self._split_output(output)
        expected = (-0.5 * ((self.middles - bone_age.unsqueeze(1)) / self.label_sigma) ** 2).softmax(
            1
        )  # [B, M]
        apart = F.l1_loss(number, bone_age) / self.l1_scale
        return self.regression_weight * apart + (1 - self.regression_weight) * F.cross_entropy(
            logits, expected
        )

    def _split_output(self, output: Tensor) -> tuple[Tensor, Tensor]:
        wanted = 1 + len(self.middles)
        if output.dim() != 2 or output.shape[1] != wanted:
            raise BoneAgeError(
                f"model: its output is {list(output.shape)}, and loss=distribution takes {wanted} numbers an "
                f"image.\nA network that has them: model=backbone model.num_outputs={wanted}"
            )
        return output[:, 0], output[:, 1:]
