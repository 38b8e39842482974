"""Ablation from the published recipe to v3, one change per step (docs/RESULTS_V3.md).

    python -m experiments.ablation data/rsna100_parts/development --also trainer.max_epochs=12

Each step adds one change to the step before it (experiments/conf/experiment/). All steps validate on the same
images, so each is compared with the one before by a paired test. An interrupted command resumes. Takes hours
on 2 cores; `--steps 3 4` trains a part. Prints a Markdown table; `--save ablation.json` also writes the
results, and `--show ablation.json` prints saved ones.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd

from boneage_pl.evaluation.comparison import compare_pair
from boneage_pl.evaluation.paired_test import holm_correction
from boneage_pl.evaluation.run_results import load_results
from boneage_pl.evaluation.templating import format_table, with_interval
from boneage_pl.training.runs import SUMMARY
from experiments.reproduction import train
from experiments.save_measurement import save_measurement

CONF = Path(__file__).parent / "conf"
STEPS = sorted((CONF / "experiment").glob("step_*.yaml"))
HEAD = ("step", "MAE, months", "from the step before", "p, of several tests", "images", "minutes", "device")


def describe_step(step: Path) -> str:
    """Return the first sentence of a step's comment."""
    comment = step.read_text(encoding="utf-8").splitlines()[1].removeprefix("# ")
    return comment.partition(". ")[0].rstrip(".")


def collect_results(folder: Path, seed: int) -> list[dict[str, Any]]:
    """Return the results of the steps trained with a seed: MAE in months, images processed, minutes."""
    found, before = [], None
    for step in STEPS:
        run = folder / f"{step.stem}_seed{seed}"
        if not (run / SUMMARY).exists():
            before = None
            continue
        now = load_results(run)
        trained = (pd.read_csv(run / "split.csv")["subset"] == "train").sum() * now.epochs
        test: dict[str, Any] = compare_pair(now, before) if before else {}
        found.append(
            {
                "step": describe_step(step),
                "seed": seed,
                "mae": now.mae,
                "epochs": [row["val_mae"] for row in now.history.rows],
                "difference": test.get("difference"),
                "p": test.get("p"),
                "images": int(trained),
                "minutes": now.minutes,
                "device": now.device,
            }
        )
        before = now
    return found


def make_table(steps: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Return the table of one seed's steps, with p-values corrected by Holm."""
    adjusted = iter(holm_correction([step["p"] for step in steps if step["p"] is not None]))
    return [
        HEAD,
        *(
            (
                step["step"],
                with_interval(step["mae"]),
                with_interval(step["difference"], sign="+"),
                "–" if step["p"] is None else f"{next(adjusted):.4f}",
                f"{step['images']:,}",
                f"{step['minutes']:.1f}" if step["minutes"] else "–",
                step["device"],
            )
            for step in steps
        ),
    ]


def show(steps: list[dict[str, Any]]) -> None:
    """Print a Markdown table per seed."""
    for seed in dict.fromkeys(step["seed"] for step in steps):
        print(f"\nseed {seed}\n")
        print(format_table(make_table([step for step in steps if step["seed"] == seed]), markdown=True))


def main() -> None:
    """Train the chosen steps and print the results of all steps."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, nargs="?", help="folder of the radiographs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument(
        "--steps", type=int, nargs="*", default=range(len(STEPS)), help="0 to 9; none: only print"
    )
    parser.add_argument("--folder", type=Path, default=Path("outputs/ablation"))
    parser.add_argument("--also", nargs="+", default=[], help="overrides of every run: trainer.max_epochs=12")
    parser.add_argument("--save", type=Path, help="JSON file for the results")
    parser.add_argument("--show", type=Path, nargs="+", help="print saved results without training")
    options = parser.parse_args()
    if (options.root is None) == (options.show is None):
        parser.error("give either the folder of the radiographs or --show")
    if options.show:
        show([step for file in options.show for step in json.loads(file.read_text())["steps"]])
        return
    common = [f"data.root={options.root}", *options.also]
    for seed in options.seeds:
        for at in options.steps:
            run = options.folder / f"{STEPS[at].stem}_seed{seed}"
            train(run, STEPS[at].stem, f"seed={seed}", *common, "--config-dir", str(CONF))
    steps = [step for seed in options.seeds for step in collect_results(options.folder, seed)]
    show(steps)
    if options.save:
        save_measurement(options.save, {"steps": steps})


if __name__ == "__main__":
    main()
