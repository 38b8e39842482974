"""How much leakage lowers the validation MAE of the published protocol: two protocols, one held-out set.

    python -m experiments.leak_audit data/rsna100

A tenth of each group's images is held out. v1 and v2 are trained from random weights on the rest, under each
protocol, with the same seed and budget. An interrupted command resumes.

Our choices, for a machine without a GPU: 128 pixels, 10 + 10 epochs and a tenth of the published learning
rates (as in `make demo`): at the published ones v1 has learned and memorized little after 10 epochs.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from boneage_pl.data.groups import age_edges, assign_groups
from boneage_pl.data.tables.load import read_table
from boneage_pl.evaluation.metrics import with_intervals
from boneage_pl.evaluation.paired_test import paired_comparison
from boneage_pl.evaluation.templating import with_interval
from boneage_pl.training.runs import BEST
from experiments.make_test_split import write_set
from experiments.reproduction import train
from experiments.save_measurement import save_measurement

PROTOCOLS = ("published", "disjoint")
RUNS = ("v1", "v2")


def hold_out(root: Path, folder: Path) -> None:
    """Write two data sets: `aside` with a tenth of each group, and `kept` with the rest."""
    table = read_table(root).sort_values("id").reset_index(drop=True)
    groups = assign_groups(table, age_edges(table["bone_age"], 10))
    aside = np.zeros(len(table), bool)
    for group in sorted(groups.unique()):
        rows = np.random.default_rng([0, group]).permutation(np.flatnonzero(groups == group))
        aside[rows[: max(round(len(rows) / 10), 1)]] = True
    for name, rows in (("kept", table[~aside]), ("aside", table[aside])):
        write_set(folder / name, rows)


def train_all(folder: Path, size: int, epochs: list[int], seed: int) -> None:
    """Train v1 and v2 under each protocol."""
    for protocol in PROTOCOLS:
        common = [
            f"data.root={folder / 'kept'}",
            f"data.image_size={size}",
            f"data.split_protocol={protocol}",
            "model.weights=null",
            f"seed={seed}",
        ]
        v1, v2 = (folder / f"{protocol}_{name}" for name in RUNS)
        for run, count, options in (
            (v1, epochs[0], ["v1", "optimizer.lr=0.001"]),
            (v2, epochs[1], ["v2", "optimizer.lr=0.0001", f"ckpt={v1 / BEST}"]),
        ):
            train(run, *options, *common, f"trainer.max_epochs={count}")


def balanced(predictions: pd.DataFrame) -> dict[str, float]:
    """Return the MAE with equal weights of all groups, with its 95 % interval over images."""
    weights = 1 / predictions.groupby("group")["id"].transform("size").to_numpy(float)
    error = predictions["error"].abs().to_numpy(float)
    images = pd.factorize(predictions["id"])[0]
    value, low, high = with_intervals(lambda w: {"mae": w @ error / w.sum(1)}, images, base=weights)["mae"]
    return {"value": value, "low": low, "high": high}


def evaluated(run: Path, data: str, *options: str) -> pd.DataFrame:
    """Return predictions.csv of a run's best checkpoint on `kept` or `aside`; evaluate if it is missing."""
    out = run / f"report_{data}"
    if not (out / "metrics.json").exists():
        command = [f"ckpt={run}", f"data.root={run.parent / data}", *options, f"out={out}"]
        subprocess.run([sys.executable, "-m", "boneage_pl.evaluate", *command], check=True)
    return pd.read_csv(out / "predictions.csv", dtype={"id": str})


def score(folder: Path) -> list[dict[str, Any]]:
    """Return the MAE of each protocol's v1 and v2 on their own validation rows and on the held-out images."""
    rows = []
    for protocol in PROTOCOLS:
        for name in RUNS:
            run = folder / f"{protocol}_{name}"
            own = evaluated(run, "kept", "subset=validation", "leakage=allow")
            aside = evaluated(run, "aside")
            assert not aside["seen_in_training"].any()
            here, there = balanced(own), balanced(aside)
            seen = own["seen_in_training"]
            rows.append(
                {
                    "protocol": protocol,
                    "run": name,
                    "own": here,
                    "own_images": int(own["id"].nunique()),
                    "trained_on": _part(own[seen]),
                    "not_trained_on": _part(own[~seen]),
                    "aside": there,
                    "aside_images": len(aside),
                    "aside_as_in_the_table": aside["error"].abs().mean(),
                    "gap": there["value"] - here["value"],
                }
            )
    return rows


def _part(rows: pd.DataFrame) -> dict[str, Any]:
    return {"rows": len(rows), "mae": rows["error"].abs().mean() if len(rows) else None}


def memory(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return how many months of MAE leakage hides, for v1 and v2: published's gap less disjoint's."""
    gaps = {(row["protocol"], row["run"]): row["gap"] for row in rows}
    return {name: gaps["published", name] - gaps["disjoint", name] for name in RUNS}


def on_new_images(folder: Path) -> dict[str, Any]:
    """Return the paired comparison of `published` with `disjoint` on the held-out images, for v1 and v2."""
    predictions = {
        (protocol, name): evaluated(folder / f"{protocol}_{name}", "aside")
        for protocol in PROTOCOLS
        for name in RUNS
    }
    return {
        name: paired_comparison(predictions["published", name], predictions["disjoint", name])
        for name in RUNS
    }


def main() -> None:
    """Hold out, train and evaluate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("root", type=Path, help="folder of the radiographs")
    parser.add_argument("--folder", type=Path, default=Path("outputs/leak_audit"))
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--epochs", type=int, nargs=2, default=[10, 10], help="of v1 and of v2")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--save", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    hold_out(options.root, options.folder)
    train_all(options.folder, options.size, options.epochs, options.seed)
    rows = score(options.folder)
    print("MAE in months with equal weights of all groups, with 95 % intervals over images")
    for row in rows:
        print(row["protocol"], row["run"], with_interval(row["own"]), "held out", with_interval(row["aside"]))
    for name, months in memory(rows).items():
        print(f"{name}: {months:+.2f} months of validation MAE hidden by leakage")
    pairs = on_new_images(options.folder)
    for name, pair in pairs.items():
        difference = with_interval(pair["difference"])
        print(f"{name}, held out: published less disjoint {difference}, p {pair['p']:.2g}")
    if options.save:
        budget = {"size": options.size, "epochs": options.epochs, "seed": options.seed}
        budget["with_replacement"] = True  # older records lack this
        numbers = {"rows": rows, "memory": memory(rows), "on_new_images": pairs}
        save_measurement(options.save, {**budget, **numbers})


if __name__ == "__main__":
    main()
