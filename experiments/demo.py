"""Whether `make demo` tells the published story, v2 better than v1, with other seeds too.

    python -m experiments.demo --seeds 1 2 3 0 4 5

Runs the two trainings that the Makefile names, four minutes a seed on 2 cores. The same command continues
what was interrupted.
"""

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path

from boneage_pl.training.runs import SUMMARY
from experiments.save_measurement import keep


def trainings() -> list[list[str]]:
    """Return the options of the demonstration's two trainings."""
    made = subprocess.run(["make", "-n", "demo"], capture_output=True, text=True, check=True).stdout
    commands = [shlex.split(line) for line in made.splitlines() if "+experiment=" in line]
    return [command[command.index("boneage_pl") + 1 :] for command in commands]


def main() -> None:
    """Train, and say what each seed came to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--folder", type=Path, default=Path("outputs/demo_seeds"))
    parser.add_argument("--keep", type=Path, help="write the numbers here too")
    options = parser.parse_args()
    found = []
    for seed in options.seeds:
        runs = [options.folder / f"{name}_{seed}" for name in ("v1", "v2")]
        for run, typed in zip(runs, trainings(), strict=True):
            chosen = dict(option.split("=", 1) for option in typed)
            chosen |= {"seed": seed, "output_dir": options.folder, "hydra.run.dir": run}
            if "ckpt" in chosen:
                chosen["ckpt"] = runs[0]
            command = [f"{key}={value}" for key, value in chosen.items()]
            if not (run / SUMMARY).exists():
                subprocess.run([sys.executable, "-m", "boneage_pl", *command], check=True)
        v1, v2 = (json.loads((run / SUMMARY).read_text()) for run in runs)
        found.append({"seed": seed, "v1": v1["best_val_mae"], "v2": v2["best_val_mae"]})
        print("seed {seed}: v1 {v1:.2f}, v2 {v2:.2f} months".format(**found[-1]), flush=True)
    if options.keep:
        keep(options.keep, {"trainings": trainings(), "seeds": found})


if __name__ == "__main__":
    main()
