"""Containers and clusters: full shared memory, users without a name, many processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from boneage_pl.data.datamodule import BoneAgeDataModule
from boneage_pl.errors import BoneAgeError
from boneage_pl.utils import hardware
from tests.conftest import balanced_table, write_rsna


@pytest.mark.parametrize(
    ("prepared", "gpu", "processes", "expected"),
    [
        (True, False, 1, 0),
        (False, False, 1, 8),
        (True, True, 1, 4),
        (False, True, 1, 16),
        (False, True, 8, 4),
        (True, True, 16, 2),
        (True, True, 64, 1),
        (False, False, 8, 1),
    ],
)
def test_training_processes_share_cores(
    monkeypatch: pytest.MonkeyPatch, prepared: bool, gpu: bool, processes: int, expected: int
):
    monkeypatch.setattr(hardware, "cores", lambda: 32)
    assert hardware.default_workers(prepared=prepared, gpu=gpu, processes=processes) == expected


def run(code: str, folder: Path, timeout: int = 120, **env: str) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(code)
    return subprocess.run(
        [sys.executable, "script.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **env},
    )


@pytest.mark.slow
def test_nameless_user_can_import_everything(tmp_path: Path):
    code = """
import pwd, os
def unknown(uid): raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = unknown
for name in ("LOGNAME", "USER", "LNAME", "USERNAME"): os.environ.pop(name, None)
import boneage_pl.train
print(os.environ["LOGNAME"])
"""
    result = run(code, tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == f"user{os.getuid()}"


@pytest.mark.parametrize(
    "work",
    [
        'build_cache(table, Path("data"), Path("prepared.npy"), ResizeSpec(107), 2)',
        pytest.param(
            'index_images(relative_paths(table, Path("data")), Path("data"), ResizeSpec(107), 2)',
            marks=pytest.mark.slow,
        ),
    ],
)
def test_script_without_main_guard_fails_clearly(tmp_path: Path, work: str):
    """Started processes import the script; without a guard they would run it again and deadlock.

    As `BoneAgeDataModule` does with and without a cache, but without importing torch.
    """
    write_rsna(tmp_path / "data", balanced_table(6))
    code = """
from pathlib import Path
from boneage_pl.data.images.resize import ResizeSpec
from boneage_pl.data.cache.build import build_cache, relative_paths
from boneage_pl.data.cache.index import index_images
from boneage_pl.data.tables.load import read_table
table = read_table(Path("data"))
"""
    result = run(code + work, tmp_path)
    assert result.returncode == 1
    assert 'if __name__ == "__main__":' in result.stderr.splitlines()[-1]
    result = run(f'{code}if __name__ == "__main__":\n  {work}', tmp_path)
    assert result.returncode == 0, result.stderr


def test_full_shared_memory_is_an_error(rsna: Path, monkeypatch: pytest.MonkeyPatch):
    def full(_: torch.Tensor) -> None:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: Success (0)")

    data = BoneAgeDataModule(str(rsna), 107, samples_per_group=4, num_workers=1)
    data.prepare_data()
    data.setup()
    monkeypatch.setattr(torch.Tensor, "share_memory_", full)  # loader processes are forks
    with pytest.raises(BoneAgeError, match=r"Shared memory .* is too small"):
        next(iter(data.train_dataloader()))
