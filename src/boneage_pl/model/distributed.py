"""Gather values and average BatchNorm statistics over processes."""

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm


def is_distributed() -> bool:
    """Whether this process trains with others."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def gather(values: list[Any]) -> list[Any]:
    """Return the values of all processes in rank order."""
    if not is_distributed():
        return values
    lists: list[list[Any]] = [[] for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(lists, values)
    return [value for part in lists for value in part]


def average_batchnorm_statistics(network: nn.Module) -> None:
    """Average the running BatchNorm statistics over all processes.

    Without synchronized BatchNorm, which PyTorch supports on GPUs only, processes would validate different
    networks, and rank 0's would be saved. The variance of the mixture is the mean of the variances plus the
    variance of the means.
    """
    layers = [m for m in network.modules() if isinstance(m, _BatchNorm)]
    means = [m.running_mean for m in layers if m.running_mean is not None]
    variances = [m.running_var for m in layers if m.running_var is not None]
    if not is_distributed() or not means:
        return
    own = torch.cat(means)
    mean = _process_mean(own)
    variance = _process_mean(torch.cat(variances) + (own - mean).square())
    sizes = [len(buffer) for buffer in means]
    for buffers, values in ((means, mean), (variances, variance)):
        for buffer, value in zip(buffers, torch.split(values, sizes), strict=True):
            buffer.copy_(value)


def _process_mean(values: Tensor) -> Tensor:
    """Return the mean over processes of values [N]."""
    total = values.clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()
