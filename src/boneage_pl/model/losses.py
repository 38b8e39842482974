"""Losses beyond those of PyTorch."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from boneage_pl.errors import BoneAgeError


class AgeDistributionLoss(nn.Module):
    """A number of months, and beside it how likely each month is, learnt together.

    The true age is told as a normal distribution over the months (label distribution; Gao et al., IEEE TIP
    2017), which cross-entropy compares with the network's; the number by its absolute error. The answer is
    the mean of the two.

    Args:
        decode_months: M, how many there are: the distribution is over the middles 0.5, 1.5, …
        width: standard deviation of what is told, in months.
        number: share of the number in loss and answer; 0 leaves the distribution alone, 1 the number.
        scale: months of absolute error that weigh as much as 1 of cross-entropy.
        answer: of the distribution: its `expectation`, or its `median`.
    """

    def __init__(
        self,
        months: int = 240,
        width: float = 6.0,
        number: float = 0.5,
        scale: float = 10.0,
        answer: str = "expectation",
    ) -> None:
        super().__init__()
        if answer not in ("expectation", "median"):
            raise ValueError(f"answer={answer}: there are expectation and median")
        if months < 2 or min(width, scale) <= 0 or not 0 <= number <= 1:
            raise ValueError("months must be 2 or more, width and scale above 0, number a share")
        self.width, self.number, self.scale, self.answer = width, number, scale, answer
        self.register_buffer("middles", torch.arange(months) + 0.5, persistent=False)

    middles: Tensor  # months [M]

    def decode_months(self, output: Tensor) -> Tensor:
        """Return the answers in months: [B, 1 + M] → [B]."""
        number, logits = self._log_probabilities(output)
        likely = logits.softmax(1)
        if self.answer == "expectation":
            distributed = likely @ self.middles
        else:  # where half of it lies at or below, within the month in a line
            below = likely.cumsum(1)
            at = (below < 0.5).sum(1, keepdim=True).clamp(max=len(self.middles) - 1)
            inside = likely.gather(1, at)
            share = (0.5 - (below.gather(1, at) - inside)) / inside.clamp(min=1e-12)
            distributed = (at + share.clamp(0, 1)).squeeze(1)
        return self.number * number + (1 - self.number) * distributed

    def std(self, output: Tensor) -> Tensor:
        """Return the standard deviation of each distribution, in months: [B, 1 + M] → [B]."""
        likely = self._log_probabilities(output)[1].softmax(1)
        expected = likely @ self.middles
        return (likely @ self.middles.square() - expected.square()).clamp(min=0).sqrt()

    def forward(self, output: Tensor, bone_age: Tensor) -> Tensor:
        """Return the loss: [B, 1 + M] and months [B] → one number."""
        number, logits = self._log_probabilities(output)
        expected = (-0.5 * ((self.middles - bone_age.unsqueeze(1)) / self.width) ** 2).softmax(1)  # [B, M]
        apart = F.l1_loss(number, bone_age) / self.scale
        return self.number * apart + (1 - self.number) * F.cross_entropy(logits, expected)

    def _log_probabilities(self, output: Tensor) -> tuple[Tensor, Tensor]:
        wanted = 1 + len(self.middles)
        if output.dim() != 2 or output.shape[1] != wanted:
            raise BoneAgeError(
                f"model: its output is {list(output.shape)}, and loss=distribution takes {wanted} numbers an "
                f"image.\nA network that has them: model=pooled model.outputs={wanted}"
            )
        return output[:, 0], output[:, 1:]
