"""Benchmark the project against a plain implementation: `make bench`.

    python -m benchmarks.speed [--rounds 3] [--only input prepare ...]

Each measurement runs in its own process; the sides alternate, and a row is the median of the rounds. No data
are needed: phantoms of the original size are drawn. Prints a Markdown table, as in RESULTS.md.
"""

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from benchmarks.export_speed import SIDES, write_exports
from benchmarks.inference_latency import write_checkpoint
from boneage_pl.data.phantom import phantom_table, render_radiograph, write_phantom
from boneage_pl.utils.hardware import resolve_precision
from boneage_pl.utils.processes import cores, worker_pool

CORES = cores()
ORIGINAL = (1600, 2080)  # pixels, typical of the RSNA's images
DISTINCT, ORIGINALS = 40, 960  # phantoms drawn; files, by hard links


def draw_original(task: tuple[Path, int, bool, int]) -> None:
    path, months, male, index = task
    render_radiograph(months, male, seed=0, index=index, size=ORIGINAL[1]).resize(ORIGINAL).save(path)


def write_originals(root: Path) -> None:
    """Write full-size phantoms in the challenge's layout."""
    folder = root / "boneage-training-dataset"
    folder.mkdir(parents=True)
    table = phantom_table(DISTINCT, seed=0)
    rows = list(zip(table["id"], table["boneage"], table["male"], strict=True))
    with worker_pool(CORES) as pool:
        list(pool.map(draw_original, [(folder / f"{i}.png", int(a), bool(m), int(i)) for i, a, m in rows]))
    for copy in range(DISTINCT, ORIGINALS):
        (folder / f"{copy + 1}.png").hardlink_to(folder / f"{copy % DISTINCT + 1}.png")
    whole = pd.concat([table] * (ORIGINALS // DISTINCT)).assign(id=range(1, ORIGINALS + 1))
    whole.to_csv(root / "boneage-training-dataset.csv", index=False)


def write_noise(root: Path, count: int) -> None:
    """Write noise images of 16 × 16 pixels, of all ages and both sexes."""
    images, rng = root / "boneage-training-dataset", np.random.default_rng(0)
    images.mkdir(parents=True)
    for i in range(1, count + 1):
        pixels = rng.integers(0, 256, (16, 16), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{i}.png", compress_level=0)
    ages = np.linspace(1, 228, count).round().astype(int)
    table = pd.DataFrame({"id": range(1, count + 1), "boneage": ages, "male": np.arange(count) % 2 == 0})
    table.to_csv(root / "boneage-training-dataset.csv", index=False)


def measure(side: str, what: str, **options: Any) -> dict[str, float]:
    arguments = [f"{key}={value}" for key, value in options.items()]
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.run_measurement", side, what, *arguments]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{result.stderr[-2000:]}")
    print(".", end="", file=sys.stderr, flush=True)
    return dict(json.loads(result.stdout.splitlines()[-1]))


class Table:
    """Prints rows of medians, the ratio first."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds
        print("| ratio | what | project | against | of |\n| --- | --- | --- | --- | --- |")

    def sides(self, what: str, sides: Sequence[str], **options: Any) -> list[dict[str, float]]:
        """Measure the sides alternately and return the median of each."""
        runs = [[measure(side, what, **options) for side in sides] for _ in range(self.rounds)]
        return [{key: median(run[k][key] for run in runs) for key in runs[0][k]} for k in range(len(sides))]

    def row(self, ratio: float, what: str, project: str, against: str, of: str) -> None:
        print(f"| {ratio:.2f} × | {what} | {project} | {against} | {of} |", flush=True)


def input_rows(table: Table, folder: Path) -> None:
    for side, name in (("project", "from the store"), ("streamed", "`data.cache=false`")):
        ours, theirs = table.sides(
            "input", (side, "published"), root=folder / "originals", size=500, seconds=8
        )
        what, against = f"input at 500 px, {name}", "published pipeline"
        one, other = ours["cpu_ms_per_image"], theirs["cpu_ms_per_image"]
        table.row(other / one, f"{what}: CPU time an image", f"{one:.2f} ms", f"{other:.2f} ms", against)
        one, other = ours["images_per_s"], theirs["images_per_s"]
        table.row(one / other, f"{what}: images/s in one process", f"{one:.1f}", f"{other:.1f}", against)


def prepare_row(table: Table, folder: Path) -> None:
    options = {"root": folder / "originals", "size": 500, "cores": CORES}
    ours, theirs = table.sides("prepare", ("project", "published"), **options)
    rate = "images_per_s"
    what = f"prepare to 500 px on {CORES} cores, images/s"
    table.row(ours[rate] / theirs[rate], what, f"{ours[rate]:.1f}", f"{theirs[rate]:.1f}", "decoding alone")


def start_rows(table: Table, folder: Path) -> None:
    """Time a command to its first line and to its description of the training."""
    for count in (12_611, 100_000):
        root = folder / f"noise_{count}"
        write_noise(root, count)
        command = [sys.executable, "-m", "boneage_pl.prepare", f"data.root={root}", "data.image_size=107"]
        subprocess.run(command, check=True, capture_output=True)
        ours, theirs = table.sides("start", ("project", "published"), root=root)
        for key, name in (("first", "first line"), ("opening", "description")):
            what = f"command to its {name}, {count:,} prepared images"
            one, other = ours[key], theirs[key]
            table.row(one / other, what, f"{one:.2f} s", f"{other:.2f} s", "`import torch`")
        shutil.rmtree(root)


def step_rows(table: Table, folder: Path, size: int, steps: int) -> None:
    options = {"root": folder / "phantom", "size": size, "batch": 32, "steps": steps}
    ours, theirs = table.sides("step", ("project", "published"), **options)
    for key, name, unit in (
        ("images_per_s", "training step", "images/s"),
        ("peak_gib", "peak memory", "GiB"),
        ("checkpoint_gb", "checkpoint", "GB"),
    ):
        one, other = ours[key], theirs[key]
        what = f"{name}, {size} px, batch 32"
        table.row(one / other, what, f"{one:.2f} {unit}", f"{other:.2f} {unit}", "plain loop")


def inference_row(table: Table, _folder: Path) -> None:
    options = {"size": 500, "batch": 16, "steps": 5}
    ours, theirs = table.sides("inference", ("project", "published"), **options)
    rate = "images_per_s"
    what = "inference, 500 px: images/s"
    table.row(ours[rate] / theirs[rate], what, f"{ours[rate]:.1f}", f"{theirs[rate]:.1f}", "float32 eager")


def prediction_rows(table: Table, folder: Path) -> None:
    """Time a first prediction, and 500 full-size files beside decoding alone and the network alone."""
    originals = folder / "originals"
    image = next(originals.rglob("*.png"))
    for size in (128, 500):
        ckpt = write_checkpoint(folder, size)
        ours, theirs = table.sides("first_prediction", ("project", "published"), ckpt=ckpt, image=image)
        one, other = ours["seconds"], theirs["seconds"]
        against = "`import torch, torchvision` and the weights"
        table.row(
            one / other, f"command to its prediction, {size} px", f"{one:.2f} s", f"{other:.2f} s", against
        )
        options = {"ckpt": ckpt, "root": originals, "count": 500}
        ours, decode = table.sides("many_predictions", ("project", "decode"), **options)
        alone = median(
            measure("network", "many_predictions", **options)["images_per_s"] for _ in range(table.rounds)
        )
        rate, decoded = ours["images_per_s"], decode["images_per_s"]
        slower = min(alone, decoded)
        what = f"prediction of 500 full-size PNGs, {size} px, images/s"
        named = f"the slower alone: decoding {decoded:.1f}, network {alone:.1f}"
        table.row(rate / slower, what, f"{rate:.1f}", f"{slower:.1f}", named)


def export_rows(table: Table, folder: Path) -> None:
    """Time one image and a batch with each runtime."""
    for size in (128, 500):
        exports = write_exports(folder, size)
        for batch in (1, 16):
            options = {"folder": exports, "size": size, "batch": batch}
            names = list(SIDES)
            taken = dict(zip(names, table.sides("exported", names, **options), strict=True))
            eager = taken["eager"]["ms"]
            for side in names[1:]:
                ms = taken[side]["ms"]
                what = f"{SIDES[side]}, {size} px, batch {batch}"
                rates = [f"{1000 * batch / one:.1f} a second, {one:.1f} ms" for one in (ms, eager)]
                table.row(eager / ms, what, *rates, SIDES["eager"])
        shutil.rmtree(exports)


ROWS: dict[str, Callable[[Table, Path], None]] = {
    "input": input_rows,
    "prepare": prepare_row,
    "start": start_rows,
    "step128": partial(step_rows, size=128, steps=12),
    "step500": partial(step_rows, size=500, steps=3),
    "inference": inference_row,
    "predict": prediction_rows,
    "exports": export_rows,
}


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    named = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return (
        f"{date.today()}, {CORES} cores of {(named or [platform.processor()])[0]}, GPU: {gpu}, "
        f"{resolve_precision('auto')}, Python {platform.python_version()}, torch {torch.__version__}"
    )


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=ROWS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if {"input", "prepare", "predict"} & set(options.only):
            write_originals(Path(folder, "originals"))
        write_phantom(Path(folder, "phantom"), count=800, seed=0, size=500)
        print(f"{machine()}\n\nEach ratio is the median of {options.rounds} rounds, the sides in turns.\n")
        table = Table(options.rounds)
        for name in options.only:
            ROWS[name](table, Path(folder))


if __name__ == "__main__":
    main()
