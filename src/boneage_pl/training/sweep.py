"""Results of a sweep as a table and a summary."""

import csv
import json
import statistics
from dataclasses import dataclass
from pathlib import Path

import yaml

from boneage_pl.training.runs import HYDRA_OVERRIDES, SUMMARY, runs_of_sweep

REPEAT_OPTIONS = ("seed", "data.seed")  # options that differ between repetitions of an experiment


@dataclass
class SweepRun:
    """One run of a sweep; `best_val_mae` (months) is `None` if unfinished or not finite."""

    folder: Path
    overrides: dict[str, str]
    best_val_mae: float | None


def summarize_sweep(folder: Path) -> None:
    """Write the results of a sweep to its sweep.csv and print them."""
    if runs := [_read(run) for run in runs_of_sweep(folder)]:
        rows = [{"run": r.folder.name, "best_val_mae": r.best_val_mae, **r.overrides} for r in runs]
        with (folder / "sweep.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
            writer.writeheader()
            writer.writerows(rows)
        print(format_sweep(runs))


def _read(run: Path) -> SweepRun:
    lines = yaml.safe_load((run / HYDRA_OVERRIDES).read_text(encoding="utf-8")) or []
    parts = (line.partition("=") for line in lines)
    overrides = {key: value for key, _, value in parts}  # `~key` has no value
    try:
        best = json.loads((run / SUMMARY).read_text(encoding="utf-8"))["best_val_mae"]
    except (OSError, ValueError, KeyError):
        best = None
    return SweepRun(run, overrides, best)


def format_sweep(runs: list[SweepRun]) -> str:
    """Format the runs of a sweep, with mean ± sample s.d. of those that differ only in the seed."""
    varied = {key for run in runs for key in run.overrides if len({r.overrides.get(key) for r in runs}) > 1}
    repeats: dict[str, list[float]] = {}
    rows = []
    for run in runs:
        options = {key: f"{key}={value}" for key, value in run.overrides.items() if key in varied}
        rows.append((" ".join(options.values()), run))
        if run.best_val_mae is not None:
            same = " ".join(text for key, text in options.items() if key not in REPEAT_OPTIONS)
            repeats.setdefault(same or "all", []).append(run.best_val_mae)
    width = max(len(name) for name, _ in rows)
    lines = ["", "best validation MAE (months)"]
    for name, run in rows:
        months = "     none" if run.best_val_mae is None else f"{run.best_val_mae:9.3f}"
        lines.append(f"  {name:<{width}}  {months}  {run.folder}")
    if varied & set(REPEAT_OPTIONS):
        for what, values in repeats.items():
            spread = f" ± {statistics.stdev(values):.3f} (s.d.)" if len(values) > 1 else ""
            lines.append(f"{what}: {statistics.mean(values):.3f}{spread} over {len(values)} runs")
    return "\n".join(lines)
