"""Train variants of v3 in parallel on one GPU, which so small a network does not fill.

    python -m experiments.v3_gpu data/mixed_development --save docs/records/v3_gpu.json [--minutes 9]

Each variant is `+experiment=v3` with the overrides below. All validate on the same images and are compared
with v3 by paired tests. Trainings are stopped after `--minutes`; the same command resumes them.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from boneage_pl.evaluation.comparison import compare_pair
from boneage_pl.evaluation.run_results import load_results
from boneage_pl.evaluation.templating import format_table, with_interval
from boneage_pl.training.runs import SUMMARY
from experiments.save_measurement import save_measurement

VARIANTS: dict[str, tuple[str, ...]] = {
    "v3": (),
    "48 epochs": ("trainer.max_epochs=48",),
    "one cycle": ("scheduler=cosine",),
    "128 px": ("transforms.train.size.size=128",),
    "192 px": ("transforms.train.size.size=192",),
    "not cropped": ("transforms.train.crop=null",),
    "Lite2": ("model.backbone=tf_efficientnet_lite2",),
    "batches of 128": ("data.batch_size=128", "optimizer.lr=0.0025"),
    "weights and order of seed 2": ("data.split_seed=1", "seed=2"),
    "128 px, seed 2": ("transforms.train.size.size=128", "data.split_seed=1", "seed=2"),
}


def train_together(commands: dict[str, list[str]], folder: Path, seconds: float) -> None:
    """Run commands in parallel, with a log each, and terminate them after a time limit."""
    folder.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + seconds
    running = []
    for name, command in commands.items():
        with (folder / f"{name}.log").open("a") as log:
            running.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT))
    for process in running:
        try:
            process.wait(max(until - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            process.terminate()
    for process in running:
        process.wait()


def collect_results(folder: Path) -> list[dict[str, Any]]:
    """Return each variant's MAE in months, so far, and its difference to v3."""
    found = []
    for name in VARIANTS:
        if not (folder / name / "metrics.csv").exists():
            continue
        run = load_results(folder / name)
        both = name != "v3" and (folder / "v3" / SUMMARY).exists()
        test = compare_pair(run, load_results(folder / "v3")) if both else {}
        row = {"variant": name, "mae": run.mae, "epochs": [epoch["val_mae"] for epoch in run.history.rows]}
        minutes = run.minutes if run.summary else None  # of finished runs alone
        found.append({**row, "difference": test.get("difference"), "minutes": minutes})
    return found


def show(found: list[dict[str, Any]]) -> None:
    """Print the results as a Markdown table."""
    rows = [
        (
            row["variant"],
            str(len(row["epochs"])),
            with_interval(row["mae"]),
            with_interval(row["difference"], sign="+"),
            f"{row['minutes']:.1f}" if row["minutes"] else "not finished",
        )
        for row in found
    ]
    head = ("v3 with", "epochs", "MAE, months", "less v3's", "minutes")
    print(format_table([head, *rows], markdown=True))


def main() -> None:
    """Train the variants and print their results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, help="folder of the radiographs")
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--only", nargs="+", default=list(VARIANTS), choices=VARIANTS, metavar="NAME")
    parser.add_argument("--also", nargs="+", default=[], help="overrides of every run: trainer.max_epochs=1")
    parser.add_argument("--folder", type=Path, default=Path("outputs/v3_gpu"))
    parser.add_argument("--save", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    always = [sys.executable, "-m", "boneage_pl", "+experiment=v3", f"data.root={options.root}"]
    commands = {
        name: [*always, *VARIANTS[name], *options.also, f"hydra.run.dir={options.folder / name}"]
        for name in options.only
        if not (options.folder / name / SUMMARY).exists()
    }
    train_together(commands, options.folder, 60 * options.minutes)
    found = collect_results(options.folder)
    show(found)
    if options.save:
        save_measurement(options.save, {"variants": found})


if __name__ == "__main__":
    main()
