"""Shared data sets, runs and fixtures."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from PIL import Image

if TYPE_CHECKING:
    from tests.helpers.fork_server import Forks

# Sums must not depend on the number of cores; two processes of two threads each slow each other down.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("BONEAGE_DATA", None)

# These take minutes: they start first, so that two test processes end at about the same time.
LONG = (
    "test_experiments",
    "test_sweep",
    "test_stress",
    "test_resume",
    "test_ddp",
    "test_evaluate",
    "test_app",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


# four images in each of the twenty groups, at the published network's smallest size
SMALL_PHANTOM = [
    "data=phantom",
    "data.phantom.count=80",
    "data.phantom.size=128",
    "data.image_size=107",
    "data.samples_per_group=4",
]
Result = subprocess.CompletedProcess[str]


def write_rsna(folder: Path, table: pd.DataFrame, images: Path | None = None, csv: str | None = None) -> None:
    """Write a table (id, boneage, male) and a small gray image for each row, as the Kaggle archive does."""
    images = images or folder / "boneage-training-dataset"
    images.mkdir(parents=True)
    table.to_csv(folder / (csv or "boneage-training-dataset.csv"), index=False)
    for i in table["id"]:
        rng = np.random.default_rng(int(i))
        pixels = rng.integers(0, 256, (130 + int(i) % 7, 120), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{i}.png")


def balanced_table(per_group: int) -> pd.DataFrame:
    """Return `per_group` rows in each of the twenty groups, ages from 1 to 228 months."""
    rows = [
        {"boneage": round(1 + 227 * (b + (k + 1) / (per_group + 1)) / 10), "male": male}
        for male in (False, True)
        for b in range(10)
        for k in range(per_group)
    ]
    table = pd.DataFrame(rows)
    table.loc[[0, len(table) - 1], "boneage"] = [1, 228]
    return table.assign(id=range(1, len(table) + 1))[["id", "boneage", "male"]]


@pytest.fixture(scope="session")
def rsna(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 4 images in each of the twenty groups."""
    root = tmp_path_factory.mktemp("rsna")
    write_rsna(root, balanced_table(4))
    return root


def run_command(*arguments: str, cwd: Path, check: bool = True, timeout: int = 600, **env: str) -> Result:
    """Run `python -m boneage_pl` as a user would, in a new process."""
    result = subprocess.run(
        [sys.executable, "-m", "boneage_pl", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        timeout=timeout,
    )
    assert not check or result.returncode == 0, result.stdout + result.stderr
    return result


@pytest.fixture(scope="session")
def forks() -> Iterator["Forks"]:
    """A fork server, shared by the tests of a process, since its imports take seconds."""
    from tests.helpers.fork_server import Forks

    folder = tempfile.TemporaryDirectory(prefix="forked_", ignore_cleanup_errors=True)
    with folder as name, Forks(Path(name)) as forks:
        yield forks


@pytest.fixture(scope="session")
def command(forks: "Forks") -> Callable[..., Result]:
    """Run `python -m boneage_pl` as a user would type it."""
    return forks.run
