"""Read the results of a run's folder, of a committed record, or of a file of predictions."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf.errors import OmegaConfBaseException

from boneage_pl.errors import BoneAgeError
from boneage_pl.evaluation.breakdown import metrics_by_part
from boneage_pl.evaluation.prediction_files import read_predictions, with_error
from boneage_pl.training.history import EpochMetrics, MetricsHistory
from boneage_pl.training.run_dir import is_running, load_run_config, to_plain
from boneage_pl.training.runs import HYDRA_OVERRIDES, SUMMARY, experiment_of

PAIRED_TESTS = "paired_tests.json"  # a record's tests against others, by their names


@dataclass
class RunResults:
    """What a run, or another model, reached; an MAE is in months, on its own validation rows.

    Args:
        path: folder of the run or of its record, or the file of predictions.
        name: that no other of a comparison has.
        config: its configuration as it was written, not resolved, by dotted key; a file has none.
        history: its epochs as far as they go.
        running: whether a process is at work in it.
        summary: the content of summary.json; `None` until the run is finished.
        metrics: that of the report's metrics.json; empty until then. Of a file `overall`, `by_sex`, `by_age`.
        predictions: that of the report's predictions.csv; `None` until then, and in a record.
        run: that of run.json.
        paired_tests: of a record, see `paired_comparison`, by the other's name.
    """

    path: Path
    name: str
    config: dict[str, Any] = field(default_factory=dict)
    history: MetricsHistory = field(default_factory=MetricsHistory)
    running: bool = False
    summary: dict[str, Any] | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    predictions: pd.DataFrame | None = None
    run: dict[str, Any] = field(default_factory=dict)
    paired_tests: dict[str, Any] = field(default_factory=dict)

    @property
    def experiment(self) -> str:
        """The experiment's name, "–" where it is not known."""
        known = (self.summary or {}).get("experiment") or self.run.get("experiment")
        return str(known or experiment_of(self.path) or "–")

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
    def epochs(self) -> int:
        """How many epochs it has trained."""
        return len(self.history.rows)

    @property
    def planned(self) -> int:
        """How many epochs it is to train."""
        now = self.run.get("config", {}).get("trainer", {})  # a run that goes on may have been given more
        return int(now.get("max_epochs", self.config["trainer.max_epochs"]))

    @property
    def finished(self) -> bool:
        """Whether all of its predictions are made."""
        return self.summary is not None or self.path.is_file()

    @property
    def state(self) -> str:
        """Its verdict, or how far it is."""
        if self.path.is_file():
            return "a file of predictions"
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
    def device(self) -> str | None:
        """What it was trained on, in the last session; `None` where it is not recorded."""
        sessions = self.run.get("sessions", [])
        if not sessions:
            return None
        hardware = sessions[-1]["hardware"]
        return ", ".join(hardware["gpus"]) or f"CPU, {hardware['cores']} cores"


def load_results(path: Path, option: str = "runs") -> RunResults:
    """Read a run's folder, finished or not, a record of it, or a file of predictions.

    Args:
        path: of it.
        option: that named it, for the error.

    Raises:
        BoneAgeError: it is none of these, or what it holds cannot be read; see `read_predictions`.
    """
    if path.is_file():
        return RunResults(path, path.stem, predictions=read_predictions(path, option))
    return _load_run(path)


def add_known_ages(results: list[RunResults]) -> None:
    """Give files of predictions the bone ages that others have for their images, and metrics.

    Raises:
        BoneAgeError: nobody has an age for a file's images.
    """
    known = [r.predictions for r in results if r.predictions is not None and "bone_age" in r.predictions]
    for one in results:
        if not one.path.is_file() or one.predictions is None:
            continue
        if "bone_age" not in one.predictions:
            ages = pd.concat(known or [pd.DataFrame({"id": [], "bone_age": []})]).drop_duplicates("id")
            columns = [name for name in ("id", "bone_age", "male") if name in ages]
            table = one.predictions.drop(columns=columns[1:], errors="ignore").merge(ages[columns], on="id")
            if table.empty:
                raise BoneAgeError(
                    f"{one.path}: no other has bone ages (id, bone_age) for its images, and it has none."
                )
            one.predictions = with_error(table)
        one.metrics = metrics_by_part(one.predictions)


def _load_run(folder: Path) -> RunResults:
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
                missing = {"predicted": [""], "error": [""]}  # "NA" is an id, too
                results.predictions = pd.read_csv(
                    report / "predictions.csv", dtype={"id": str}, keep_default_na=False, na_values=missing
                )
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
