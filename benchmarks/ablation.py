"""From the published recipe to v3, a step at a time, as it stands in docs/V3.md: what is each worth?

    python -m benchmarks.ablation data/rsna100_parts/development --also trainer.max_epochs=12

Each step is the one before it and one thing more (benchmarks/conf/experiment/). All validate on the same
images, so that each is tested against the one before, paired. The same command goes on where it was
interrupted; hours on 2 cores, so `--steps 3 4` takes a part. Prints a table in Markdown of what there is.
"""

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.reproduction import train
from boneage_pl.report.comparison import difference_of
from boneage_pl.report.html import with_interval
from boneage_pl.report.outcome import read_outcome
from boneage_pl.run.runs import FINISHED

CONF = Path(__file__).parent / "conf"
STEPS = sorted((CONF / "experiment").glob("step_*.yaml"))
HEAD = ("step", "MAE, months", "from the step before", "p", "images trained on", "time", "device")


def words_of(step: Path) -> str:
    """Return what a step adds: its first comment."""
    return step.read_text(encoding="utf-8").splitlines()[1].removeprefix("# ").rstrip(".")


def rows(folder: Path, seed: int) -> list[list[str]]:
    """Return a row for each step that has been trained with a seed."""
    found, before = [], None
    for step in STEPS:
        run = folder / f"{step.stem}_seed{seed}"
        if not (run / FINISHED).exists():
            before = None
            continue
        now = read_outcome(run)
        test: dict[str, Any] = difference_of(now, before) if before else {}
        trained = (pd.read_csv(run / "split.csv")["subset"] == "train").sum() * now.epochs
        difference = with_interval(test["difference"], sign="+") if test.get("difference") else "–"
        p = f"{test['p']:.4f}" if test.get("p") is not None else "–"
        minutes = f"{now.minutes:.1f} min" if now.minutes else "–"
        found.append(
            [words_of(step), with_interval(now.mae), difference, p, f"{trained:,}", minutes, now.device]
        )
        before = now
    return found


def main() -> None:
    """Train what is asked for and has not been trained, and print what came of all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, help="folder of the radiographs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument(
        "--steps", type=int, nargs="*", default=range(len(STEPS)), help="0 to 9; none: the table"
    )
    parser.add_argument("--folder", type=Path, default=Path("outputs/ablation"))
    parser.add_argument("--also", nargs="+", default=[], help="options of every run: trainer.max_epochs=12")
    options = parser.parse_args()
    common = [f"data.root={options.root}", *options.also]
    for seed in options.seeds:
        for at in options.steps:
            run = options.folder / f"{STEPS[at].stem}_seed{seed}"
            train(run, STEPS[at].stem, f"seed={seed}", *common, "--config-dir", str(CONF))
    for seed in options.seeds:
        print(f"\nseed {seed}\n")
        for row in (HEAD, ["---"] * len(HEAD), *rows(options.folder, seed)):
            print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
