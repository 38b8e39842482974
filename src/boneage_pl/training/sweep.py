"""Results of a sweep: table and summary."""

import csv
import json
import statistics
from dataclasses import dataclass
from pathlib import Path

import yaml

from boneage_pl.training.runs import runs_of_sweep

REPEAT_OPTIONS = ("seed", "data.seed")  # what differs between runs that are one experiment repeated


@dataclass
class SweepRun:
    """One run of a sweep; `best_val_mae` (months) is `None` where it did not end or is not finite."""

    folder: Path
    overrides: dict[str, str]
    best_val_mae: float | None


def summarize_sweep(folder: Path) -> None:
    """Write what the runs below a sweep's folder came to as its sweep.csv, and print it."""
    if runs := read_sweep(folder):
        write_sweep(runs, folder / "sweep.csv")
        print(format_sweep(runs))


def read_sweep(folder: Path) -> list[SweepRun]:
    """Read every run below a sweep's folder, in the order that they were started in."""
    return [_read(run) for run in runs_of_sweep(folder)]


def _read(run: Path) -> SweepRun:
    lines = yaml.safe_load((run / ".hydra" / "overrides.yaml").read_text(encoding="utf-8")) or []
    parts = (line.partition("=") for line in lines)
    overrides = {key: value for key, _, value in parts}  # `~key` has no value
    try:
        best = json.loads((run / "report" / "summary.json").read_text(encoding="utf-8"))["best_val_mae"]
    except (OSError, ValueError, KeyError):
        best = None
    return SweepRun(run, overrides, best)


def format_sweep(runs: list[SweepRun]) -> str:
    """Say what a sweep came to: its runs, and mean ± sample s.d. of those that differ in their seed alone."""
    varied = {key for run in runs for key in run.overrides if len({r.overrides.get(key) for r in runs}) > 1}
    named = {id(run): " ".join(f"{k}={v}" for k, v in run.overrides.items() if k in varied) for run in runs}
    width = max(len(name) for name in named.values())
    lines = ["", "best validation MAE (months)"]
    lines += [f"  {named[id(run)]:<{width}}  {_months(run.best_val_mae)}  {run.folder}" for run in runs]
    for what, values in _repeats(runs, varied).items():
        spread = f" ± {statistics.stdev(values):.3f} (s.d.)" if len(values) > 1 else ""
        lines.append(f"{what}: {statistics.mean(values):.3f}{spread} over {len(values)} runs")
    return "\n".join(lines)


def _repeats(runs: list[SweepRun], varied: set[str]) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = {}
    for run in runs:
        kept = [f"{k}={v}" for k, v in run.overrides.items() if k in varied and k not in REPEAT_OPTIONS]
        if run.best_val_mae is not None:
            groups.setdefault(" ".join(kept) or "all", []).append(run.best_val_mae)
    return groups if varied & set(REPEAT_OPTIONS) else {}


def _months(value: float | None) -> str:
    return "     none" if value is None else f"{value:9.3f}"


def write_sweep(runs: list[SweepRun], path: Path) -> None:
    """Write a row a run: its folder, best validation MAE in months, and every override."""
    keys = list(dict.fromkeys(key for run in runs for key in run.overrides))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["run", "best_val_mae", *keys])
        writer.writeheader()
        for run in runs:
            writer.writerow({"run": run.folder.name, "best_val_mae": run.best_val_mae, **run.overrides})
