"""A schedule that keeps groups' rates in proportion: up in a line, down along a cosine."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class WarmupCosine:
    """The factor of every rate at a step: from near 0 to 1 in a line, then along half a cosine to `least`.

    Loshchilov and Hutter, SGDR, ICLR 2017; the warm-up as Goyal et al., 2017.

    Args:
        total: steps of the run.
        rising: steps of them until the factor is 1.
        least: factor of the last step.
    """

    def __init__(self, total: int, rising: int, least: float) -> None:
        self.total, self.rising, self.least = total, rising, least

    def __call__(self, step: int) -> float:
        """Return the factor of a step, counted from 0."""
        if step < self.rising:
            return (step + 1) / (self.rising + 1)
        done = min((step - self.rising) / max(self.total - 1 - self.rising, 1), 1.0)
        return self.least + (1 - self.least) * (1 + math.cos(math.pi * done)) / 2


def warmup_cosine(
    optimizer: Optimizer, total_steps: int, warm_up: float = 0.05, least: float = 0.01
) -> LambdaLR:
    """Return the scheduler of a run of `total_steps`.

    Args:
        optimizer: its groups' rates are the highest that they reach.
        total_steps: of the run.
        warm_up: share of them in which the rates rise.
        least: share of its highest rate that each ends at.
    """
    if not 0 <= warm_up < 1 or not 0 <= least <= 1:
        raise ValueError(f"warm_up={warm_up} and least={least} are shares of 1")
    return LambdaLR(optimizer, WarmupCosine(total_steps, round(warm_up * total_steps), least))
