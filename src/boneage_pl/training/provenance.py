"""Provenance of a run: versions, hardware, data fingerprint; run.json."""

import hashlib
import json
import os
import platform
import subprocess
import sys
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from boneage_pl import __version__
from boneage_pl.training.metadata import CheckpointMetadata
from boneage_pl.training.runs import run_of
from boneage_pl.utils.files import atomic_write
from boneage_pl.utils.processes import cores

SCHEMA = 2  # of run.json; increment when a key changes its meaning
PACKAGES = ("torch", "torchvision", "lightning", "timm", "hydra-core", "omegaconf", "pandas", "numpy",
            "pillow", "torchmetrics", "tensorboard", "matplotlib", "scipy")  # fmt: skip


class RunLog:
    """Writes run.json: a session per start of the run, a row per epoch.

    Args:
        path: of the file; existing content is continued.
        fixed: content that is the same in all sessions: seed, configuration, data.
        keep: number of existing epochs to keep; later ones are trained again.
    """

    def __init__(self, path: Path, fixed: dict[str, Any], keep: int) -> None:
        before = _read(path)
        session = {"started": format_time(datetime.now()), "first_epoch": keep, **describe_environment()}
        self.path = path
        self.content: dict[str, Any] = {
            "schema": SCHEMA,
            **fixed,
            "sessions": [*before.get("sessions", []), session],
            "epochs": before.get("epochs", [])[:keep],
        }

    @classmethod
    def start(cls, run: Path, record: CheckpointMetadata, table: Any, keep: int) -> "RunLog":
        """Return the log of a run with the given metadata and image table."""
        fixed = {
            "experiment": record.experiment,
            "seed": record.config["seed"],
            "precision": record.precision,
            "data": data_fingerprint(table, record.split["file_sha256"]),
            "config": record.config,
        }
        return cls(run / "run.json", fixed, keep)

    def epoch(self, number: int, seconds: float, images_per_second: float) -> None:
        """Add an epoch's wall time and write the file."""
        earlier = [row for row in self.content["epochs"] if row["epoch"] != number]
        rate = round(images_per_second, 1)
        row = {"epoch": number, "seconds": round(seconds, 3), "images_per_second": rate}
        self.content["epochs"] = [*earlier, row]
        self.write()

    def write(self) -> None:
        """Write the file."""
        self.content["sessions"][-1]["last_written"] = format_time(datetime.now())
        atomic_write(self.path, json.dumps(self.content, indent=1) + "\n")


def load_run_json(checkpoint: Path) -> dict[str, Any]:
    """Return the run.json of a checkpoint's run; empty if it is missing or has another schema."""
    content = _read(run_of(checkpoint) / "run.json")
    return content if {"sessions", "data", "epochs"} <= content.keys() else {}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def format_time(time: datetime) -> str:
    """Format a time in ISO 8601 with time zone."""
    return time.astimezone().isoformat(timespec="seconds")


def describe_environment() -> dict[str, Any]:
    """Return versions, commit, hardware and command as plain values."""
    return {
        "boneage_pl": __version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "git": git_state(Path(__file__).parent),
        "hardware": hardware(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def git_state(folder: Path) -> dict[str, Any] | None:
    """Return commit and modified state of the checkout around `folder`; `None` without one."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    try:
        if not (Path(git("rev-parse", "--show-toplevel")) / "src" / "boneage_pl").is_dir():
            return None  # installed inside another repository
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def hardware() -> dict[str, Any]:
    """Return processor, cores, memory in GiB and GPUs."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": names[0] if names else platform.processor(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())],
    }


def data_fingerprint(table: Any, hashes: dict[str, str]) -> dict[str, Any]:
    """Return the number of rows of a data set and hashes of its table and images.

    Args:
        table: `id, bone_age, male`, a row per image.
        hashes: SHA-256 of the image files by id.
    """
    columns = (table[name] for name in ("id", "bone_age", "male"))
    rows = sorted(f"{i},{age:g},{int(male)}" for i, age, male in zip(*columns, strict=True))
    images = [f"{i} {hashes[i]}" for i in sorted(hashes)]
    return {
        "images": len(rows),
        "table_sha256": _sha256(rows),
        "hashed_images": len(hashes),
        "images_sha256": _sha256(images),
    }


def _sha256(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
