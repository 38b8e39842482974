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
HYDRA_OVERRIDES = Path(".hydra", "overrides.yaml")  # the last file that Hydra writes before a run starts
SUMMARY = Path("report", "summary.json")  # the last file that a run writes


def experiment_of(run: Path) -> str | None:
    """Return the experiment of a run folder from Hydra's files; `None` if it has none."""
    try:
        record = yaml.safe_load((run / ".hydra" / "hydra.yaml").read_text(encoding="utf-8"))
        return str(record["hydra"]["runtime"]["choices"]["experiment"])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):  # ValueError: not UTF-8
        return None


def _checkpoints(outputs: Path) -> list[Path]:
    """Return the best.ckpt files of `outputs/<run>` and `outputs/<experiment>/<run>`."""
    return [*outputs.glob(f"*/{BEST}"), *outputs.glob(f"*/*/{BEST}")]


def run_of(checkpoint: Path) -> Path:
    """Return the run folder of a checkpoint, assuming it is in one."""
    return checkpoint.resolve().parent.parent


def newest_run(outputs: Path, experiment: str) -> Path | None:
    """Return the newest finished run of an experiment under `outputs`, or `None`.

    If none has finished, return the newest unfinished one and log a warning.
    """
    # nested experiments have their runs deeper; a path is not an experiment
    is_path = not experiment or Path(experiment).is_absolute()
    nested = [] if is_path else outputs.glob(f"{escape(experiment)}/*/{BEST}")
    checkpoints = [c for c in {*_checkpoints(outputs), *nested} if experiment_of(c.parents[1]) == experiment]
    runs = [c.parents[1] for c in sorted(checkpoints, key=lambda ckpt: ckpt.stat().st_mtime_ns)]
    finished = [run for run in runs if (run / SUMMARY).exists()]
    if not runs:
        return None
    newest = (finished or runs)[-1]
    if runs[-1] not in finished:
        log.warning("%s: the newest run, %s, is unfinished; using %s", experiment, runs[-1], newest)
    return newest


def find_checkpoint(ckpt: str, outputs: Path, option: str = "ckpt", name: Path = BEST) -> Path:
    """Return the checkpoint of a file path, a run folder or an experiment (its newest run).

    A folder with a single .safetensors file stands for that file.

    Args:
        ckpt: path or name.
        outputs: folder of the runs.
        option: the option that named it, for errors.
        name: which checkpoint of a run.

    Raises:
        BoneAgeError: not found; the message lists available runs.
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
    runs = sorted(str(path.parents[1]) for path in _checkpoints(outputs))
    available = (
        f"Runs under {outputs}/ with a best.ckpt: {', '.join(runs[-5:])}"
        if runs
        else f"No run under {outputs}/ has one."
    )
    if path.is_dir():
        problem = f"the folder has no {name} and no single .safetensors file"
    else:
        problem = f"no such file or run folder, and no run of an experiment {ckpt} under {outputs}/"
    raise BoneAgeError(f"{option}={ckpt}: {problem}.\n{available}")


def find_checkpoints(names: Iterable[object], outputs: Path) -> list[Path]:
    """Return the checkpoints of several names, see `find_checkpoint`; for a sweep those of all its runs.

    A sweep is named by its folder, or by its experiment (the newest sweep).

    Raises:
        BoneAgeError: no name, not found, or a sweep with unfinished runs.
    """
    paths = [
        path
        for name in names
        for path in _sweep_checkpoints(str(name), outputs) or [find_checkpoint(str(name), outputs)]
    ]
    if not paths:
        raise BoneAgeError("ckpt=[]: at least one checkpoint is needed.")
    return paths


def runs_of_sweep(folder: Path) -> list[Path]:
    """Return the run folders of a sweep in numerical order."""
    numbered = [run for run in folder.iterdir() if run.name.isdecimal() and (run / ".hydra").is_dir()]
    return sorted(numbered, key=lambda run: int(run.name))


def _sweep_checkpoints(name: str, outputs: Path) -> list[Path]:
    """Return the best.ckpt of each run of a sweep; empty if `name` is not a sweep."""
    folder = expand_path(name)
    if not folder.is_dir() and name and not Path(name).is_absolute():
        checkpoints = [
            c for c in outputs.glob(f"{escape(name)}/*/*/{BEST}") if experiment_of(c.parents[1]) == name
        ]
        newest = max(checkpoints, key=lambda ckpt: ckpt.stat().st_mtime_ns, default=None)
        folder = newest.parents[2] if newest else folder
    runs = runs_of_sweep(folder) if folder.is_dir() else []
    if unfinished := [run.name for run in runs if not (run / SUMMARY).exists()]:
        raise BoneAgeError(
            f"ckpt={name}: of the runs in {folder}, {', '.join(unfinished)} are unfinished.\n"
            f"Repeat the command of the sweep with hydra.sweep.dir={folder},\n"
            "or name single runs: ckpt=[…,…]."
        )
    return [run / BEST for run in runs]


def unfinished_runs(outputs: Path) -> list[Path]:
    """Return the runs under `outputs` without a report, the most recently written first."""

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
    """Return a path relative to the working folder if it is inside, for short printed commands."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
