"""The scripts of benchmarks and experiments run."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.export_speed import SIDES, write_exports
from benchmarks.inference_latency import write_checkpoint
from boneage_pl.data.phantom import write_phantom

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(path for folder in ("benchmarks", "experiments") for path in (ROOT / folder).glob("*.py"))
SIZE, COUNT = 107, 400
BOTH = ("project", "published")
CKPT = f"ckpt=run_{SIZE}/checkpoints/best.ckpt"
MEASURED = {  # function, sides and options
    "input": (("project", "streamed", "published"), f"root=data size={SIZE} seconds=1"),
    "prepare": (BOTH, f"root=data size={SIZE} cores=2"),
    "step": (BOTH, f"root=data size={SIZE} batch=8 steps=2"),
    "inference": (BOTH, f"size={SIZE} batch=2 steps=2"),
    "start": (BOTH, "root=data"),
    "first_prediction": (BOTH, f"{CKPT} image=data/boneage-training-dataset/1.png"),
    "many_predictions": (("project", "decode", "network"), f"{CKPT} root=data count={COUNT}"),
    "exported": (tuple(SIDES), f"folder=exports_{SIZE} size={SIZE} batch=2"),
}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_script_imports(script: Path):
    module = importlib.import_module(f"{script.parent.name}.{script.stem}")
    assert module.__doc__


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speed")
    write_phantom(folder / "data", count=COUNT, seed=0, size=128)
    write_checkpoint(folder, SIZE)
    return write_exports(folder, SIZE).parent


@pytest.mark.slow
@pytest.mark.parametrize("what", MEASURED)
def test_both_sides_are_measured(folder: Path, what: str):
    sides, options = MEASURED[what]
    keys = set()
    for side in sides:
        command = [sys.executable, "-m", "benchmarks.run_measurement", side, what, *options.split()]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout.splitlines()[-1])
        assert all(value > 0 for value in found.values())
        keys.add(tuple(found))
    assert len(keys) == 1
