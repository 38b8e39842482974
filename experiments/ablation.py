"""From the published recipe to v3, a step at a time, as it stands in docs/RESULTS_V3.md: what is each worth?

    python -m experiments.ablation data/rsna100_parts/development --also trainer.max_epochs=12

Each step is the one before it and one thing more (experiments/conf/experiment/). All validate on the same
images, so that each is tested against the one before, paired. The same command goes on where it was
interrupted; hours on 2 cores, so `--steps 3 4` takes a part. Prints a table in Markdown of what there is, and
with `--keep ablation.json` writes it down; with `--kept ablation.json` it prints what is written there.
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
from experiments.save_measurement import keep

CONF = Path(__file__).parent / "conf"
STEPS = sorted((CONF / "experiment").glob("step_*.yaml"))
HEAD = ("step", "MAE, months", "from the step before", "p, of several tests", "images", "minutes", "device")


def words_of(step: Path) -> str:
    """Return what a step adds: its comment's first sentence."""
    comment = step.read_text(encoding="utf-8").splitlines()[1].removeprefix("# ")
    return comment.partition(". ")[0].rstrip(".")


def measured(folder: Path, seed: int) -> list[dict[str, Any]]:
    """Return what came of each step that has been trained with a seed: months, images processed, minutes."""
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
                "step": words_of(step),
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


def table_of(steps: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Return a row of words for each step of a seed, the head first; p as one of the tests of that seed."""
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
    """Print a table in Markdown for each seed."""
    for seed in dict.fromkeys(step["seed"] for step in steps):
        print(f"\nseed {seed}\n")
        print(format_table(table_of([step for step in steps if step["seed"] == seed]), markdown=True))


def main() -> None:
    """Train the chosen steps that have not been trained, and print the results of all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, nargs="?", help="folder of the radiographs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument(
        "--steps", type=int, nargs="*", default=range(len(STEPS)), help="0 to 9; none: the table"
    )
    parser.add_argument("--folder", type=Path, default=Path("outputs/ablation"))
    parser.add_argument("--also", nargs="+", default=[], help="options of every run: trainer.max_epochs=12")
    parser.add_argument("--keep", type=Path, help="write what came of it here too")
    parser.add_argument(
        "--kept", type=Path, nargs="+", help="print what was written there, and train nothing"
    )
    options = parser.parse_args()
    if (options.root is None) == (options.kept is None):
        parser.error("the folder of the radiographs, or --kept and what was written")
    if options.kept:
        show([step for file in options.kept for step in json.loads(file.read_text())["steps"]])
        return
    common = [f"data.root={options.root}", *options.also]
    for seed in options.seeds:
        for at in options.steps:
            run = options.folder / f"{STEPS[at].stem}_seed{seed}"
            train(run, STEPS[at].stem, f"seed={seed}", *common, "--config-dir", str(CONF))
    steps = [step for seed in options.seeds for step in measured(options.folder, seed)]
    show(steps)
    if options.keep:
        keep(options.keep, {"steps": steps})


if __name__ == "__main__":
    main()
