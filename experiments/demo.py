"""Repeat the trainings of `make demo` with several seeds: is v2 better than v1 with each?

    python -m experiments.demo --seeds 1 2 3 0 4 5

Takes four minutes per seed on 2 cores. An interrupted command resumes.
"""

import argparse
import shlex
import subprocess
from pathlib import Path

from experiments.reproduction import train
from experiments.save_measurement import save_measurement


def trainings() -> list[list[str]]:
    """Return the command-line arguments of the two trainings of `make demo`."""
    printed = subprocess.run(["make", "-n", "demo"], capture_output=True, text=True, check=True).stdout
    commands = [shlex.split(line) for line in printed.splitlines() if "+experiment=" in line]
    return [command[command.index("boneage_pl") + 1 :] for command in commands]


def main() -> None:
    """Train with each seed and print the MAEs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--folder", type=Path, default=Path("outputs/demo_seeds"))
    parser.add_argument("--save", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    found: list[dict[str, float]] = []
    for seed in options.seeds:
        folder = options.folder / f"seed{seed}"
        found.append({"seed": seed})
        for typed in trainings():
            chosen = dict(option.split("=", 1) for option in typed) | {"seed": seed, "output_dir": folder}
            name = chosen.pop("+experiment")
            command = [f"{key}={value}" for key, value in chosen.items()]
            found[-1][name] = train(folder / name / "run", name, *command)
        print("seed {seed}: v1 {v1:.2f}, v2 {v2:.2f} months".format(**found[-1]), flush=True)
    if options.save:
        save_measurement(options.save, {"trainings": trainings(), "seeds": found})


if __name__ == "__main__":
    main()
