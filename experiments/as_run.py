"""What each difference between the author's runs and the description is worth, one at a time.

    python -m experiments.as_run data/rsna100 --keep docs/records/as_run.json

Trains v1 once, on pixels in [-1, 1] as the author's, then v2 from it with one difference each. An interrupted
command resumes. Our choices, for a machine without a GPU: random weights, 107 pixels, 100 rows of each group,
8 + 6 epochs, and a tenth of the published rate for v1, which learns little in 8 epochs at 0.01.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from boneage_pl.training.runs import SUMMARY
from experiments.reproduction import train
from experiments.save_measurement import keep

FLIPS = 3  # validations with other random flips
ONE_STEP = ("trainer.max_epochs=1", "trainer.limit_train_batches=1")  # for the validation before it
DIFFERENCES = {
    "none": [],
    "state": ["optimizer.state=checkpoint"],
    "normalization": ["model.normalization=imagenet"],
}


def epochs_of(run: Path) -> list[float]:
    """Return a run's validation MAE by epoch, months."""
    lines = (run / "metrics.csv").read_text().splitlines()[1:]
    return [float(line.split(",")[2]) for line in lines]


def start_of(run: Path) -> float:
    """Return a run's validation MAE before its first step, months."""
    return float(json.loads((run / SUMMARY).read_text())["start"]["val_mae"])


def measured(folder: Path, common: list[str], epochs: list[int]) -> dict[str, Any]:
    """Train what has not been trained, and return the errors in months."""
    v1 = folder / "v1"
    rate = ["optimizer.lr=0.001", f"trainer.max_epochs={epochs[0]}", "model.normalization=inception"]
    train(v1, "v1", *common, *rate)
    start = [*common, f"ckpt={v1}"]
    flipped = []
    for seed in range(FLIPS):
        run = folder / f"flips_{seed}"
        train(run, "v2", *start, *ONE_STEP, "transforms=as_run", f"seed={seed}")
        flipped.append(start_of(run))
    v2 = {}
    for name, difference in DIFFERENCES.items():
        run = folder / name
        train(run, "v2", *start, f"trainer.max_epochs={epochs[1]}", *difference)
        v2[name] = {"start": start_of(run), "epochs": epochs_of(run)}
    flips = {"without": v2["none"]["start"], "with": flipped, "mean": statistics.mean(flipped)}
    return {"v1": epochs_of(v1), "flips": flips, "v2": v2}


def main() -> None:
    """Train, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("root", type=Path, help="folder of the radiographs")
    parser.add_argument("--folder", type=Path, default=Path("outputs/as_run"))
    parser.add_argument("--size", type=int, default=107)
    parser.add_argument("--rows", type=int, default=100, help="of each group by sex and age")
    parser.add_argument("--epochs", type=int, nargs=2, default=[8, 6], help="of v1 and of v2")
    parser.add_argument("--keep", type=Path, help="write the numbers here too")
    options = parser.parse_args()
    common = [f"data.root={options.root}", f"data.image_size={options.size}", "model.weights=null"]
    common += [f"data.samples_per_group={options.rows}", f"output_dir={options.folder}"]
    found = measured(options.folder, common, options.epochs)
    print(json.dumps(found, indent=1))
    if options.keep:
        keep(options.keep, {"size": options.size, "rows": options.rows, "epochs": options.epochs, **found})


if __name__ == "__main__":
    main()
