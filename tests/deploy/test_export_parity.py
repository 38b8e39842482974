"""Exported files predict like PyTorch, for several image sizes and batch sizes."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from boneage_pl.data.images.resize import ResizeSpec
from boneage_pl.data.phantom import render_radiograph
from boneage_pl.data.transforms.compose import Compose
from boneage_pl.deploy.export_module import ExportModule
from boneage_pl.deploy.onnx import open_onnx, write_onnx
from boneage_pl.deploy.torch_export import open_program, write_program
from boneage_pl.deploy.verify import PARITY_MONTHS
from boneage_pl.errors import BoneAgeError
from boneage_pl.model.inception import InceptionRegressor
from boneage_pl.model.inference import InferenceModule
from boneage_pl.model.input_spec import Normalize, get_input_spec
from boneage_pl.training.metadata import CheckpointMetadata
from boneage_pl.training.safetensors_io import save_shared_weights
from tests.helpers.fake_checkpoint import record
from tests.helpers.tiny_models import Ages, Gray, Tiny

slow = pytest.mark.slow


def settled(network: nn.Module, image: NDArray[np.uint8], male: NDArray[np.float32]) -> nn.Module:
    """Return a network with BatchNorm statistics of the images, without which predictions are huge."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(Normalize(get_input_spec(network))(torch.from_numpy(image)), torch.from_numpy(male))
        network.age.bias += 100
    return network


def exported(network: nn.Module, side: int, loss: Any = None) -> ExportModule:
    model = ExportModule.__new__(ExportModule)
    nn.Module.__init__(model)
    model.frame = ResizeSpec(side)
    model.predictors = nn.ModuleList([InferenceModule(network, Compose(), loss or nn.L1Loss())])
    return model.eval()


@pytest.mark.parametrize(
    ("network", "side"),
    [
        (Tiny, 107),
        pytest.param(Tiny, 128, marks=slow),
        pytest.param(Tiny, 500, marks=slow),
        pytest.param(InceptionRegressor, 107, marks=slow),
        pytest.param(InceptionRegressor, 128, marks=slow),
        pytest.param(InceptionRegressor, 500, marks=slow),
    ],
)
def test_formats_match_pytorch(network: type[nn.Module], side: int, tmp_path: Path):
    hands = [
        np.asarray(render_radiograph(20 + 40 * k, k % 2 == 0, seed=0, index=k, size=side)) for k in range(5)
    ]
    rng = np.random.default_rng(0)  # a hundred images: five hands with noise
    image = np.stack([hands[k % 5] ^ rng.integers(0, 8, (side, side), np.uint8) for k in range(100)])[:, None]
    male = (np.arange(100) % 2).astype(np.float32)
    torch.manual_seed(0)
    model = exported(settled(network(side), image[:4], male[:4]), side)
    write_onnx(model, tmp_path / "x.onnx")
    write_program(model, tmp_path / "x.pt2", {})
    exact = np.concatenate([model.predict(image[at : at + 5], male[at : at + 5]) for at in range(0, 100, 5)])
    assert exact.std() > 0
    for predict in (open_onnx(tmp_path / "x.onnx"), open_program(tmp_path / "x.pt2")):
        ends = np.cumsum([1, 2, 5] * 12 + [4])
        assert ends[-1] == 100
        parts = [slice(start, end) for start, end in pairwise([0, *ends])]
        found = np.concatenate([predict(image[part], male[part]) for part in parts])
        assert found.dtype == np.float32
        assert np.abs(found - exact).max() < PARITY_MONTHS


def test_one_channel_distribution_network_exports(tmp_path: Path):
    torch.manual_seed(0)
    model = exported(Gray(), 107, Ages([20.0, 100.0, 180.0]))
    write_onnx(model, tmp_path / "x.onnx")
    image = np.random.default_rng(0).integers(0, 256, (3, 1, 107, 107), np.uint8)
    male = np.array([0, 1, 0], np.float32)
    assert (
        np.abs(open_onnx(tmp_path / "x.onnx")(image, male) - model.predict(image, male)).max() < PARITY_MONTHS
    )


def test_onnx_size_limit_is_enforced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("boneage_pl.deploy.onnx.MAX_PROTOBUF_BYTES", 1000)
    with pytest.raises(BoneAgeError, match=r"at most 2.\nExport fewer checkpoints together"):
        write_onnx(exported(Tiny(107), 107), tmp_path / "x.onnx")


class Undecided(nn.Module):
    """Has data-dependent control flow, which cannot be exported."""

    def forward(self, image: torch.Tensor, male: torch.Tensor) -> torch.Tensor:
        return male.unsqueeze(1) if image.mean() > 0.5 else image.mean((1, 2, 3)).unsqueeze(1)


@pytest.mark.parametrize("write", [write_onnx, lambda model, path: write_program(model, path, {})])
def test_unexportable_network_is_refused(write: Any, tmp_path: Path):
    with pytest.raises(BoneAgeError, match=r"format=\w+: PyTorch cannot export this network: .") as refused:
        write(exported(Undecided(), 107), tmp_path / "x")
    assert len(str(refused.value).splitlines()) == 1


@contextmanager
def little_room(count: int) -> Iterator[None]:
    """Limit the size of written files, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_is_one_error(tmp_path: Path):
    """The libraries' own writers raise other exceptions, or abort the process."""
    network = Tiny(107)
    model, metadata = exported(network, 107), CheckpointMetadata.from_dict(record(9.0))
    writers = {
        "x.onnx": lambda path: write_onnx(model, path),
        "x.pt2": lambda path: write_program(model, path, {}),
        "x.safetensors": lambda path: save_shared_weights(path, network.state_dict(), metadata, None),
    }
    for name, write in writers.items():
        with little_room(5000), pytest.raises(OSError):
            write(tmp_path / name)
    assert not (tmp_path / "x.safetensors").exists()
