"""Gather values and average BatchNorm statistics over processes."""

from typing import Any

import torch
from torch import distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm


def is_distributed() -> bool:
    """Whether this process trains with others."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def gather(values: list[Any]) -> list[Any]:
    """Return the values of all processes, one process after the other."""
    if not is_distributed():
        return values
    lists: list[list[Any]] = [[] for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(lists, values)
    return [value for part in lists for value in part]


def average_batchnorm_statistics(network: nn.Module) -> None:
    """Give every process the mean of all processes' running BatchNorm statistics.

    Each normalizes its own share of a batch unless BatchNorm is synchronized, which PyTorch does on GPUs
    only; without this, processes would validate different networks, and the first one's would be saved.
    """
    if not is_distributed():
        return
    layers = [m for m in network.modules() if isinstance(m, _BatchNorm)]
    buffers = [b for m in layers for b in (m.running_mean, m.running_var) if b is not None]
    if buffers:
        flat = torch.cat(buffers)
        distributed.all_reduce(flat)
        flat /= distributed.get_world_size()
        for buffer, mean in zip(buffers, torch.split(flat, [len(b) for b in buffers]), strict=True):
            buffer.copy_(mean)
