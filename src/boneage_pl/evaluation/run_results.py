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

PAIRED_TESTS = "paired_tests.json"  # a record's tests against other runs, by name


@dataclass
class RunResults:
    """Results of a run or of another model; MAEs in months, of a run on its validation rows.

    Args:
        path: folder of the run or of its record, or the file of predictions.
        name: unique within a comparison.
        config: unresolved configuration by dotted key; empty for a file.
        history: epochs so far.
        running: whether a process is training the run.
        summary: content of summary.json; `None` until the run is finished.
        metrics: content of the report's metrics.json, empty until then; parts of it for a file.
        predictions: content of the report's predictions.csv; `None` until then, and for a record.
        run: content of run.json.
        paired_tests: tests of a record by the other's name, see `paired_comparison`.
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
        """The experiment's name, "–" if unknown."""
        name = (self.summary or {}).get("experiment") or self.run.get("experiment")
        return str(name or experiment_of(self.path) or "–")

    @property
    def best(self) -> EpochMetrics | None:
        """The best epoch so far: a row of metrics.csv."""
        return self.history.best

    @property
    def mae(self) -> dict[str, Any] | None:
        """MAE of the best epoch, with its interval once the run is finished."""
        if self.metrics:
            return dict(self.metrics["overall"]["mae"])
        return {"value": self.best["val_mae"], "low": None, "high": None} if self.best else None

    @property
    def epochs(self) -> int:
        """Number of trained epochs."""
        return len(self.history.rows)

    @property
    def planned(self) -> int:
        """Number of planned epochs."""
        trainer = self.run.get("config", {}).get("trainer", {})  # a resumed run may have been given more
        return int(trainer.get("max_epochs", self.config["trainer.max_epochs"]))

    @property
    def finished(self) -> bool:
        """Whether the results are final."""
        return self.summary is not None or self.path.is_file()

    @property
    def state(self) -> str:
        """Verdict, or progress of an unfinished run."""
        if self.path.is_file():
            return "a file of predictions"
        if self.summary is not None:
            return str(self.summary["verdict"])
        if not self.epochs:
            return "running, first epoch" if self.running else "stopped in its first epoch"
        done = f"{self.epochs} of {self.planned} epochs"
        return f"running, {done}" if self.running else f"stopped after {done}"

    @property
    def minutes(self) -> float | None:
        """Duration of the epochs with validation; `None` if not recorded."""
        return sum(row["seconds"] for row in self.run.get("epochs", [])) / 60 or None

    @property
    def device(self) -> str | None:
        """Hardware of the last session; `None` if not recorded."""
        sessions = self.run.get("sessions", [])
        if not sessions:
            return None
        hardware = sessions[-1]["hardware"]
        return ", ".join(hardware["gpus"]) or f"CPU, {hardware['cores']} cores"


def load_results(path: Path, option: str = "runs") -> RunResults:
    """Read a run folder, finished or not, a record, or a file of predictions.

    Args:
        path: of the folder or file.
        option: the option that named it, for errors.

    Raises:
        BoneAgeError: none of these, or unreadable content; see `read_predictions`.
    """
    if path.is_file():
        return RunResults(path, path.stem, predictions=read_predictions(path, option))
    return _load_run(path)


def add_known_ages(results: list[RunResults]) -> None:
    """Add bone ages from the other results, and metrics, to files of predictions.

    Raises:
        BoneAgeError: no result has bone ages for a file's images.
    """
    with_ages = [r.predictions for r in results if r.predictions is not None and "bone_age" in r.predictions]
    for result in results:
        if not result.path.is_file() or result.predictions is None:
            continue
        if "bone_age" not in result.predictions:
            ages = pd.concat(with_ages or [pd.DataFrame({"id": [], "bone_age": []})]).drop_duplicates("id")
            columns = [name for name in ("id", "bone_age", "male") if name in ages]
            table = result.predictions.drop(columns=columns[1:], errors="ignore").merge(
                ages[columns], on="id"
            )
            if table.empty:
                raise BoneAgeError(
                    f"{result.path}: neither it nor the other results have bone ages (id, bone_age) for it."
                )
            result.predictions = with_error(table)
        result.metrics = metrics_by_part(result.predictions)


def _load_run(folder: Path) -> RunResults:
    record = (folder / "config.yaml").is_file()
    if not (record or (folder / HYDRA_OVERRIDES).is_file() or (folder / "metrics.csv").is_file()):
        raise BoneAgeError(f"{folder} is not the folder of a run or of a record.")
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
                missing = {"predicted": [""], "error": [""]}  # "NA" is a valid id
                results.predictions = pd.read_csv(
                    report / "predictions.csv", dtype={"id": str}, keep_default_na=False, na_values=missing
                )
                results.predictions[["id", "male", "bone_age", "error", "seen_in_training"]]
            results.metrics["overall"]["mae"]["value"], results.summary["verdict"]
        results.planned  # noqa: B018 — must be readable
    except (OSError, ValueError, KeyError, TypeError, OmegaConfBaseException) as error:
        raise BoneAgeError(f"{folder}: unreadable content ({error!r}).") from error
    return results


def _config(folder: Path, record: bool) -> dict[str, Any]:
    config = load_run_config(folder, "config", record=record)
    return to_plain(config, resolve=False)  # interpolations are no choices of their own


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _dotted(node: Any, at: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {at: node}
    return {
        key: value for k, v in node.items() for key, value in _dotted(v, f"{at}.{k}" if at else k).items()
    }
