"""Loss with a distribution over ages."""

from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from pydantic import validate_call
from torch import Tensor, nn
from torch.nn import functional as F

from boneage_pl.errors import BoneAgeError


class AgeDistributionLoss(nn.Module):
    """L1 loss of a regression, and cross-entropy of a distribution over months, with one network.

    The labels are normal distributions (label distribution learning; Gao et al., IEEE TIP 2017).
    The prediction is the weighted mean of the regression and the distribution's mean.

    Args:
        num_bins: M, one per month from `first`.
        first: lowest month. A margin of three standard deviations at both ends avoids truncated labels, whose
            mean would be biased (3.1 for 1 month).
        label_sigma: standard deviation of the label distribution, in months.
        regression_weight: weight of the regression in loss and prediction, 0 to 1.
        l1_scale: absolute error in months equivalent to a cross-entropy of 1.
    """

    @validate_call
    def __init__(
        self,
        num_bins: Annotated[int, Ge(2)] = 276,
        first: float = -18.0,
        label_sigma: Annotated[float, Gt(0)] = 6.0,
        regression_weight: Annotated[float, Ge(0), Le(1)] = 0.5,
        l1_scale: Annotated[float, Gt(0)] = 10.0,
    ) -> None:
        super().__init__()
        self.label_sigma, self.l1_scale = label_sigma, l1_scale
        self.regression_weight = regression_weight
        self.register_buffer("centers", torch.arange(num_bins) + (first + 0.5), persistent=False)

    centers: Tensor  # months [M]

    def decode_months(self, output: Tensor) -> Tensor:
        """Return the predictions in months: [B, 1 + M] → [B]."""
        number, logits = self._split_output(output)
        expected = logits.softmax(1) @ self.centers.to(logits.dtype)
        return self.regression_weight * number + (1 - self.regression_weight) * expected

    def std(self, output: Tensor) -> Tensor:
        """Return the standard deviation of each distribution, in months: [B, 1 + M] → [B]."""
        likely = self._split_output(output)[1].softmax(1)
        centers = self.centers.to(likely.dtype)
        expected = likely @ centers
        return (likely @ centers.square() - expected.square()).clamp(min=0).sqrt()

    def forward(self, output: Tensor, bone_age: Tensor) -> Tensor:
        """Return the loss: [B, 1 + M] and months [B] → scalar."""
        number, logits = self._split_output(output)
        distance = (self.centers - bone_age.unsqueeze(1)) / self.label_sigma  # [B, M]
        labels = (-0.5 * distance.square()).softmax(1)
        l1 = F.l1_loss(number, bone_age) / self.l1_scale
        return self.regression_weight * l1 + (1 - self.regression_weight) * F.cross_entropy(logits, labels)

    def _split_output(self, output: Tensor) -> tuple[Tensor, Tensor]:
        size = 1 + len(self.centers)
        if output.dim() != 2 or output.shape[1] != size:
            raise BoneAgeError(
                f"model: the output has shape {list(output.shape)}; loss=distribution needs [B, {size}].\n"
                f"Use model=backbone model.num_outputs={size}"
            )
        return output[:, 0], output[:, 1:]
