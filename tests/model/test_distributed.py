from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing, nn

from boneage_pl.model.distributed import average_batchnorm_statistics


def _average(rank: int, folder: Path) -> None:
    distributed.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    network = nn.Sequential(nn.BatchNorm1d(3, momentum=1.0), nn.BatchNorm1d(3, track_running_stats=False))
    network(torch.load(folder / f"{rank}.pt"))
    for _ in range(2):  # idempotent
        average_batchnorm_statistics(network)
        torch.save(network[0].state_dict(), folder / f"averaged_{rank}.pt")
    distributed.destroy_process_group()


def test_statistics_are_of_all_processes_images(tmp_path: Path):
    parts = torch.randn(2, 500, 3) * torch.tensor([[[1.0]], [[4.0]]]) + torch.tensor([[[0.0]], [[10.0]]])
    for rank, part in enumerate(parts):
        torch.save(part.clone(), tmp_path / f"{rank}.pt")
    multiprocessing.spawn(_average, (tmp_path,), nprocs=2)
    found = [torch.load(tmp_path / f"averaged_{rank}.pt") for rank in range(2)]
    whole = parts.flatten(0, 1)
    for name, expected in (("running_mean", whole.mean(0)), ("running_var", whole.var(0))):
        assert torch.equal(found[0][name], found[1][name])
        assert found[0][name].numpy() == pytest.approx(expected.numpy(), rel=0.01)
