"""Find runs and checkpoints on disk."""

import logging
from collections.abc import Iterable
from glob import escape
from pathlib import Path

import yaml

from boneage_pl.errors import BoneAgeError
from boneage_pl.utils.files import expand_path

log = logging.getLogger(__name__)

BEST, LAST, PREVIOUS = (Path("checkpoints", f"{name}.ckpt") for name in ("best", "last", "previous"))
HYDRA_OVERRIDES = Path(".hydra", "overrides.yaml")  # the last that Hydra writes before a run begins
SUMMARY = Path("report", "summary.json")  # the last file that a run writes


def experiment_of(run: Path) -> str | None:
    """Return the experiment a run folder was started with, from Hydra's record; `None` if it has none."""
    try:
        record = yaml.safe_load((run / ".hydra" / "hydra.yaml").read_text(encoding="utf-8"))
        return str(record["hydra"]["runtime"]["choices"]["experiment"])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):  # ValueError: not UTF-8
        return None


def _checkpoints(outputs: Path) -> list[Path]:
    """Return the best.ckpt of every `outputs/<run>` and `outputs/<experiment>/<run>`, none deeper."""
    return [*outputs.glob(f"*/{BEST}"), *outputs.glob(f"*/*/{BEST}")]


def run_of(checkpoint: Path) -> Path:
    """Return the folder that is a checkpoint's run, where it lies in one."""
    return checkpoint.resolve().parent.parent  # which a file at the root has too


def newest_run(outputs: Path, experiment: str) -> Path | None:
    """Return the finished run of an experiment under `outputs` with the newest best.ckpt, or `None`.

    Where none has finished, the newest of those that are being trained or were interrupted; that is logged.
    """
    # an experiment in a folder of experiments has its runs that much deeper; a path is no experiment
    whole = not experiment or Path(experiment).is_absolute()
    named = [] if whole else outputs.glob(f"{escape(experiment)}/*/{BEST}")
    checkpoints = [c for c in {*_checkpoints(outputs), *named} if experiment_of(c.parents[1]) == experiment]
    runs = [c.parents[1] for c in sorted(checkpoints, key=lambda ckpt: ckpt.stat().st_mtime_ns)]
    finished = [run for run in runs if (run / SUMMARY).exists()]
    if not runs:
        return None
    newest = (finished or runs)[-1]
    if runs[-1] not in finished:
        log.warning("%s: the newest run, %s, has not ended; %s is used", experiment, runs[-1], newest)
    return newest


def find_checkpoint(ckpt: str, outputs: Path, option: str = "ckpt", name: Path = BEST) -> Path:
    """Return the checkpoint meant by a file's path, a run's folder or an experiment's name (its newest run).

    A folder of shared weights means their file.

    Args:
        ckpt: path or name.
        outputs: where an experiment's runs are.
        option: that it was given by, for the error.
        name: of a run's checkpoints the one that is meant.

    Raises:
        BoneAgeError: nothing is there; the message names the runs that could be meant.
    """
    path = expand_path(ckpt)
    if path.is_file():
        return path
    if (path / name).is_file():
        return path / name
    if len(shared := sorted(path.glob("*.safetensors"))) == 1:
        return shared[0]
    if run := newest_run(outputs, ckpt):
        return run / name
    runs = sorted(str(found.parents[1]) for found in _checkpoints(outputs))
    there = (
        f"Runs under {outputs}/ with a best.ckpt: {', '.join(runs[-5:])}"
        if runs
        else f"No run under {outputs}/ has one."
    )
    if path.is_dir():
        problem = f"that folder has no {name}, and not one .safetensors file"
    else:
        problem = f"no such file or run folder, and no run of an experiment called {ckpt} under {outputs}/"
    raise BoneAgeError(f"{option}={ckpt}: {problem}.\n{there}")


def find_checkpoints(names: Iterable[object], outputs: Path) -> list[Path]:
    """Return the checkpoints that names mean: each as `find_checkpoint` has it, or all runs of a sweep.

    A sweep is named by its folder, or by an experiment that is one: its newest.

    Raises:
        BoneAgeError: nothing is named or there, or a sweep has runs that have not ended.
    """
    paths = [
        path
        for name in names
        for path in _sweep_checkpoints(str(name), outputs) or [find_checkpoint(str(name), outputs)]
    ]
    if not paths:
        raise BoneAgeError("ckpt=[]: name at least one checkpoint.")
    return paths


def runs_of_sweep(folder: Path) -> list[Path]:
    """Return the runs below a sweep's folder, in the order that they were started in."""
    numbered = [run for run in folder.iterdir() if run.name.isdecimal() and (run / ".hydra").is_dir()]
    return sorted(numbered, key=lambda run: int(run.name))


def _sweep_checkpoints(name: str, outputs: Path) -> list[Path]:
    """Return the best.ckpt of each run of a sweep; none where `name` is of something else."""
    folder = expand_path(name)
    if not folder.is_dir() and name and not Path(name).is_absolute():
        checkpoints = [
            c for c in outputs.glob(f"{escape(name)}/*/*/{BEST}") if experiment_of(c.parents[1]) == name
        ]
        newest = max(checkpoints, key=lambda ckpt: ckpt.stat().st_mtime_ns, default=None)
        folder = newest.parents[2] if newest else folder
    runs = runs_of_sweep(folder) if folder.is_dir() else []
    if open_ones := [run.name for run in runs if not (run / SUMMARY).exists()]:
        raise BoneAgeError(
            f"ckpt={name}: of the runs in {folder}, {', '.join(open_ones)} have not ended.\n"
            f"Give the command that began them again, with hydra.sweep.dir={folder},\n"
            "or name runs: ckpt=[…,…]."
        )
    return [run / BEST for run in runs]


def unfinished_runs(outputs: Path) -> list[Path]:
    """Return the runs under `outputs` that have not written their report, the one that wrote last first."""

    def written(run: Path) -> int:
        files = [path for path in (run / LAST, run / HYDRA_OVERRIDES) if path.exists()]
        return max((path.stat().st_mtime_ns for path in files), default=0)

    folders = {
        record.parent.parent
        for depth in ("*", "*/*", "*/*/*")
        for record in outputs.glob(f"{depth}/{HYDRA_OVERRIDES}")
    }
    return sorted((run for run in folders if not (run / SUMMARY).exists()), key=written, reverse=True)


def shortest_path(path: Path) -> Path:
    """Return a path relative to the working folder if it lies below it: printed commands stay short."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
