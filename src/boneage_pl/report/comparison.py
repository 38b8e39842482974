"""Runs beside each other: their configurations, errors, curves, and a paired test of each two."""

import json
import logging
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig, ListConfig, OmegaConf

from boneage_pl.errors import BoneageError
from boneage_pl.machine.home import path_of
from boneage_pl.report.figures import learning_curves
from boneage_pl.report.html import png, render, with_interval
from boneage_pl.report.pairing import FEWEST, paired
from boneage_pl.run.folder import MAY_CHANGE, stored
from boneage_pl.run.history import History
from boneage_pl.run.runs import FINISHED, newest_run, shortest

log = logging.getLogger(__name__)

_OWN = {"outputs", "starts_from", "next_experiment", *MAY_CHANGE} - {"trainer.max_epochs"}


@dataclass
class Run:
    """A run as its folder tells of it."""

    folder: Path
    config: dict[str, Any]  # by dotted key
    history: History
    best_epoch: int
    metrics: dict[str, Any]  # metrics.json
    answers: pd.DataFrame  # predictions.csv
    record: dict[str, Any]  # run.json; empty where there is none

    @property
    def name(self) -> str:
        """The folder's last two parts: experiment and date."""
        return "/".join(self.folder.parts[-2:])

    @property
    def time(self) -> str:
        """How long its epochs took."""
        seconds = sum(row["seconds"] for row in self.record.get("epochs", []))
        return f"{seconds / 60:.1f} min" if seconds else "not recorded"

    @property
    def device(self) -> str:
        """What it was trained on, in the last session."""
        sessions = self.record.get("sessions", [])
        if not sessions:
            return "not recorded"
        hardware = sessions[-1]["hardware"]
        return ", ".join(hardware["gpus"]) or f"CPU, {hardware['cores']} cores"


def compare_runs(config: DictConfig) -> Path:
    """Write compare.html of the runs that `runs` names, print the same, and return the file.

    Raises:
        BoneageError: fewer than two runs, or one that is not finished.
    """
    names = list(config.runs) if isinstance(config.runs, ListConfig) else [config.runs]
    outputs = Path(config.outputs)
    folders = list(
        dict.fromkeys(folder.resolve() for name in names for folder in _folders(str(name), outputs))
    )
    if len(folders) < 2:
        raise BoneageError(
            f"runs={','.join(map(str, names))}: name at least two runs; this names {len(folders)}."
        )
    runs = [_read(shortest(folder)) for folder in folders]
    head, rows = _overview(runs)
    tests = [_paired(one, other) for one, other in combinations(runs, 2)]
    for line in (*_columns([head, *rows]), "", *(" ".join(test) for test in tests)):
        log.info("%s", line)
    target = (
        Path(config.out or outputs / "comparisons" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}") / "compare.html"
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    curves = learning_curves({run.name: run.history.rows for run in runs})
    page = render(
        "compare.html",
        title="Bone age: runs compared",
        runs=len(runs),
        head=head,
        rows=rows,
        curves=png(curves),
        tests=tests,
    )
    target.write_text(page, encoding="utf-8")
    log.info("\n%s", target)
    return target


def _folders(name: str, outputs: Path) -> list[Path]:
    path = path_of(name)
    if path.is_dir():
        return [path]
    if run := newest_run(outputs, name):
        return [run]
    anchor = Path(path.anchor) if path.is_absolute() else Path()
    pattern = str(path.relative_to(path.anchor)) if path.is_absolute() else name
    found = sorted(p for p in anchor.glob(pattern) if (p / "metrics.csv").is_file()) if "*" in name else []
    if not found:
        raise BoneageError(
            f"runs={name}: no run's folder, no experiment with a run under {outputs}/, and no pattern."
        )
    return found


def _read(folder: Path) -> Run:
    if not (folder / FINISHED).is_file():
        raise BoneageError(f"{folder} holds no finished run. Finish it with resume={folder}.")
    try:
        history = History.of_csv((folder / "metrics.csv").read_text())
        best = json.loads((folder / FINISHED).read_text())["best_epoch"]
        metrics = json.loads((folder / "report" / "metrics.json").read_text())
        answers = pd.read_csv(folder / "report" / "predictions.csv", dtype={"id": str})
        path = folder / "run.json"
        record = json.loads(path.read_text()) if path.is_file() else {}
        answers[["id", "error", "seen_in_training"]], metrics["overall"]["mae"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BoneageError(f"{folder}: its report cannot be read ({error}).") from error
    config = record.get("config") or OmegaConf.to_container(stored(folder, "config"))
    return Run(folder, _dotted(config), history, best, metrics, answers, record)


def _dotted(node: Any, at: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {at: node}
    return {
        key: value for k, v in node.items() for key, value in _dotted(v, f"{at}.{k}" if at else k).items()
    }


def _overview(runs: list[Run]) -> tuple[list[str], list[list[str]]]:
    keys = list(dict.fromkeys(key for run in runs for key in run.config if key not in _OWN))
    differ = [key for key in keys if len({str(run.config.get(key, "–")) for run in runs}) > 1]
    head = ["run", "best MAE, months", "epoch", "natural ages", "time", "device", *differ]
    rows = []
    for run in runs:
        natural = run.metrics.get("natural")
        rows.append(
            [
                run.name,
                with_interval(run.metrics["overall"]["mae"]),
                f"{run.best_epoch} of {len(run.history.rows)}",
                with_interval(natural["mae"]) if natural else "–",
                run.time,
                run.device,
                *(str(run.config.get(key, "–")) for key in differ),
            ]
        )
    return head, rows


def _columns(rows: list[list[str]]) -> list[str]:
    """Return what a terminal shows: a block for each run, because configurations make wide tables."""
    head, *runs = rows
    width = max(map(len, head))
    return [f"{name:<{width}}  " + "  |  ".join(run[at] for run in runs) for at, name in enumerate(head)]


def _paired(one: Run, other: Run) -> list[str]:
    """Return names, difference and p of two runs' absolute errors on the images that both validate on."""
    pair = f"{one.name} − {other.name}:"
    found = paired(*(run.answers[~run.answers["seen_in_training"]] for run in (one, other)))
    if found["images"] < FEWEST:
        return [pair, "–", f"they share {found['images']} validation images, too few"]
    if found["difference"] is None:
        return [pair, "–", "answers that are not numbers"]
    how = "all" if found["all"] else "shared"
    return [
        pair,
        with_interval(found["difference"], sign="+"),
        f"p = {found['p']:.4f} on {found['images']} images ({how})",
    ]
