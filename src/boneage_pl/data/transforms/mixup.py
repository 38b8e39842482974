"""C-Mixup: mix images of similar age."""

from typing import Annotated

import torch
from annotated_types import Gt
from pydantic import validate_call
from torch import Tensor

from boneage_pl.data.dataset import Batch
from boneage_pl.data.transforms.compose import Share, per_image


class CMixup:
    """Mix images of a batch at random with others of the same sex and nearly the same age.

    C-Mixup (Yao et al., NeurIPS 2022). Partners come from the same batch, so of several processes or
    accumulated parts each mixes its own.

    Args:
        p: probability that an image is mixed.
        sigma: standard deviation in months of how far apart two ages are likely to be.
    """

    num_random = 3

    @validate_call
    def __init__(self, p: Share = 0.5, sigma: Annotated[float, Gt(0)] = 6.0) -> None:
        self.p, self.sigma = p, sigma

    def __call__(self, batch: Batch, random: Tensor) -> Batch:
        """Mix images [B, C, H, W] and their bone ages [B] by [B, 3]; as much of one as Beta(2, 2) says."""
        age, male = batch["bone_age"], batch["male"]
        apart = (age.unsqueeze(1) - age) / self.sigma
        likely = torch.exp(-0.5 * apart**2) * (male.unsqueeze(1) == male)
        likely = likely - torch.diag(likely.diagonal())  # [B, B], of each partner
        below = likely.cumsum(1)
        partner = (below < random[:, :1] * below[:, -1:]).sum(1).clamp(max=len(age) - 1)
        alone = below[:, -1] < 1e-6  # nobody is near
        # the inverse of the distribution function 3 x² − 2 x³ of Beta(2, 2)
        own = 0.5 - torch.sin(torch.asin(1 - 2 * random[:, 1]) / 3)
        own = torch.where(alone | (random[:, 2] >= self.p), 1.0, own)
        image = batch["image"]
        mixed = per_image(own) * image + per_image(1 - own) * image[partner]
        return {**batch, "image": mixed, "bone_age": own * age + (1 - own) * age[partner]}
