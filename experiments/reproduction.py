"""Train the published experiment and save the records that docs/RESULTS_REPRODUCTION.md is built from.

    python -m experiments.reproduction data/rsna100 --seeds 1 2 3 --save docs/records

v1 with each seed, v2 from the best and the worst of them, and lr_0.1_failure with the first seed. An
interrupted command resumes. Takes hours on 2 cores; `--only v1` trains a part. Starts from random weights;
`--also model.weights=imagenet` starts from ImageNet's, as published.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from boneage_pl.training.runs import SUMMARY

FAILURE_EPOCHS = 20  # our choice: the description does not give the number


def train(run: Path, experiment: str, *options: str) -> float:
    """Train or resume a run, and return its best validation MAE in months."""
    if not (run / SUMMARY).exists():
        command = [f"+experiment={experiment}", f"hydra.run.dir={run}", *options]
        subprocess.run([sys.executable, "-m", "boneage_pl", *command], check=True)
    return float(json.loads((run / SUMMARY).read_text())["best_val_mae"])


def main() -> None:
    """Train the chosen experiments, compare them and save their records."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, help="folder of the radiographs")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--folder", type=Path, default=Path("outputs/reproduction"))
    parser.add_argument("--only", nargs="+", default=["v1", "lr_0.1_failure", "v2"], help="experiments")
    parser.add_argument("--also", nargs="+", default=[], help="overrides of every run: trainer.max_epochs=1")
    parser.add_argument("--save", type=Path, help="folder of the runs' records")
    options = parser.parse_args()
    folder = options.folder
    common = [f"data.root={options.root}", f"data.image_size={options.image_size}", f"output_dir={folder}"]
    common += ["model.weights=null", *options.also]
    v1 = {seed: folder / "v1" / f"seed{seed}" for seed in options.seeds}
    runs = list(v1.values()) if "v1" in options.only else []
    if {"v1", "v2"} & set(options.only):
        maes = {seed: train(run, "v1", f"seed={seed}", *common) for seed, run in v1.items()}
    if "lr_0.1_failure" in options.only:
        first = options.seeds[0]
        runs.append(folder / "lr_0.1_failure" / f"seed{first}")
        train(runs[-1], "lr_0.1_failure", f"seed={first}", f"trainer.max_epochs={FAILURE_EPOCHS}", *common)
    if "v2" in options.only:
        for seed in dict.fromkeys(pick(maes, key=maes.__getitem__) for pick in (min, max)):
            runs.append(folder / "v2" / f"seed{seed}")
            train(runs[-1], "v2", f"seed={seed}", f"ckpt={v1[seed]}", *common)
    save = [f"save_records={options.save}"] if options.save else []
    named = f"runs=[{','.join(map(str, runs))}]"
    if len(runs) > 1 or save:
        command = [sys.executable, "-m", "boneage_pl.compare", named, f"output_dir={folder}", *save]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
