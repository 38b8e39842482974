"""Read the results of a run's folder or of a committed record."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf.errors import OmegaConfBaseException

from boneage_pl.errors import BoneAgeError
from boneage_pl.training.history import EpochMetrics, MetricsHistory
from boneage_pl.training.run_dir import is_running, load_run_config, to_plain
from boneage_pl.training.runs import HYDRA_OVERRIDES, SUMMARY, experiment_of

PAIRED_TESTS = "paired_tests.json"  # a record's tests against others, by their names


@dataclass
class RunResults:
    """What came of a run; an MAE is in months, on its own validation rows.

    Args:
        folder: of the run, or of its record.
        name: that no other of a comparison has.
        config: its configuration as it was written, not resolved, by dotted key.
        history: its epochs as far as they go.
        running: whether a process is at work in it.
        summary: the content of summary.json; `None` until the run is finished.
        metrics: that of the report's metrics.json; empty until then.
        predictions: that of the report's predictions.csv; `None` until then, and in a record.
        run: that of run.json.
        paired_tests: of a record, see `paired_comparison`, by the other's name.
    """

    folder: Path
    name: str
    config: dict[str, Any]
    history: MetricsHistory
    running: bool = False
    summary: dict[str, Any] | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    predictions: pd.DataFrame | None = None
    run: dict[str, Any] = field(default_factory=dict)
    paired_tests: dict[str, Any] = field(default_factory=dict)

    @property
    def experiment(self) -> str:
        """The experiment's name, "–" where nothing tells it."""
        known = (self.summary or {}).get("experiment") or self.run.get("experiment")
        return str(known or experiment_of(self.folder) or "–")

    @property
    def best(self) -> EpochMetrics | None:
        """The best epoch so far: a row of metrics.csv."""
        return self.history.best

    @property
    def mae(self) -> dict[str, Any] | None:
        """The best epoch's MAE, with the ends of its interval once the run is finished."""
        if self.metrics:
            return dict(self.metrics["overall"]["mae"])
        return {"value": self.best["val_mae"], "low": None, "high": None} if self.best else None

    @property
    def population_weighted_mae(self) -> dict[str, Any] | None:
        """The same at the ages and sexes of the source table, where that is something else."""
        return self.metrics["population_weighted"]["mae"] if self.metrics.get("population_weighted") else None

    @property
    def epochs(self) -> int:
        """How many epochs it has trained."""
        return len(self.history.rows)

    @property
    def planned(self) -> int:
        """How many epochs it is to train."""
        now = self.run.get("config", {}).get("trainer", {})  # a run that goes on may have been given more
        return int(now.get("max_epochs", self.config["trainer.max_epochs"]))

    @property
    def start(self) -> dict[str, Any] | None:
        """What it started from, see `WarmStart`; `None` for random weights and until it ends."""
        return (self.summary or {}).get("start")

    @property
    def state(self) -> str:
        """Its verdict, or how far it is."""
        if self.summary is not None:
            return str(self.summary["verdict"])
        if not self.epochs:
            return "running, no epoch yet" if self.running else "ended before its first epoch did"
        done = f"{self.epochs} of {self.planned} epochs"
        return f"running, {done}" if self.running else f"stopped after {done}"

    @property
    def minutes(self) -> float | None:
        """How long its epochs took, validation included; `None` where it is not recorded."""
        return sum(row["seconds"] for row in self.run.get("epochs", [])) / 60 or None

    @property
    def device(self) -> str:
        """What it was trained on, in the last session."""
        sessions = self.run.get("sessions", [])
        if not sessions:
            return "not recorded"
        hardware = sessions[-1]["hardware"]
        return ", ".join(hardware["gpus"]) or f"CPU, {hardware['cores']} cores"

    def epoch(self, number: int) -> EpochMetrics:
        """Return an epoch's row of metrics.csv."""
        return self.history.rows[number]


def load_run_results(folder: Path) -> RunResults:
    """Read a run's folder, finished or not, or a record of it.

    Raises:
        BoneAgeError: it holds neither, or what it holds cannot be read.
    """
    record = (folder / "config.yaml").is_file()
    if not (record or (folder / HYDRA_OVERRIDES).is_file() or (folder / "metrics.csv").is_file()):
        raise BoneAgeError(f"{folder} holds no run, and no record of one.")
    finished = folder / ("summary.json" if record else SUMMARY)
    report = finished.parent
    running = not finished.is_file() and is_running(folder)
    try:
        run = _json(folder / "run.json")
        table = folder / "metrics.csv"
        results = RunResults(
            folder,
            folder.name if record else "/".join(folder.parts[-2:]),
            _dotted(_config(folder, record)),
            MetricsHistory.from_csv(table.read_text(encoding="utf-8") if table.is_file() else ""),
            running,
            run=run,
            paired_tests=_json(folder / PAIRED_TESTS),
        )
        if finished.is_file():
            results.summary = _json(finished)
            results.metrics = _json(report / "metrics.json")
            if not record:
                results.predictions = pd.read_csv(report / "predictions.csv", dtype={"id": str})
                results.predictions[["id", "male", "bone_age", "error", "seen_in_training"]]
            results.metrics["overall"]["mae"]["value"], results.summary["verdict"]
        results.planned  # noqa: B018 — it is there
    except (OSError, ValueError, KeyError, TypeError, OmegaConfBaseException) as error:
        raise BoneAgeError(f"{folder}: what it holds cannot be read ({error!r}).") from error
    return results


def _config(folder: Path, record: bool) -> dict[str, Any]:
    config = load_run_config(folder, "config", record=record)
    return to_plain(config, resolve=False)  # what follows from another choice is no choice


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _dotted(node: Any, at: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {at: node}
    return {
        key: value for k, v in node.items() for key, value in _dotted(v, f"{at}.{k}" if at else k).items()
    }
