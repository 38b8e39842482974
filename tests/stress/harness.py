"""Workspace of the trials: a folder, small runs, and uninterrupted reference runs."""

import json
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.conftest import SMALL_PHANTOM, Result
from tests.helpers.compare_runs import differing
from tests.helpers.fork_server import Forks, Running
from tests.stress.fault_injection import Plan

T = TypeVar("T")

EPOCHS = 5


@dataclass(frozen=True)
class SmallRun:
    """A small run of 5 epochs.

    Args:
        name: of the reference run.
        options: of the command.
        own: options that must be repeated on resume.
        steps, validations: minimum number of batches per epoch.
    """

    name: str
    options: tuple[str, ...]
    own: tuple[str, ...]
    steps: int
    validations: int


_COMMON = (*SMALL_PHANTOM, "data.batch_size=8", f"trainer.max_epochs={EPOCHS}", "optimizer.lr=0.001")
_TINY = ("model._target_=tests.helpers.tiny_models.Tiny",)
# a plateau scheduler that lowers the rate after each epoch
_PLATEAU = ("scheduler=plateau", "scheduler.patience=0", "+scheduler.threshold=0.5")
V1 = SmallRun("v1", ("+experiment=v1", *_COMMON, *_PLATEAU, *_TINY), _TINY, 8, 3)
# augmentations, a schedule by step, layer decay, a distribution
V3 = SmallRun(
    "v3",
    (
        "+experiment=v3",
        *_COMMON,
        "model.backbone=test_efficientnet",
        "model.weights=null",
        "transforms.train.size.size=64",
        "model.dropout=0.2",
        "optimizer.layer_decay=0.8",
    ),
    (),
    8,
    2,
)


@dataclass
class Row:
    """A row of the table: fault, number of trials, failures and result."""

    what: str
    tried: int
    failed: list[str]
    found: str


class Workspace:
    """A folder with the small data set and reference runs, and a fork server."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        # one thread, since two trials run at a time
        self.forks = Forks(folder / "commands", OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
        self.runs = self.home / "outputs"
        self.reference_run(V1)

    def start(self, *arguments: str, plan: Plan | None = None, **env: str) -> Running:
        """Start `python -m boneage_pl` with a fault plan."""
        if plan:
            env["FAULT_PLAN"] = json.dumps(plan)
        return self.forks.start("boneage_pl", *arguments, cwd=self.home, **env)

    def finish(self, name: str, *arguments: str, **env: str) -> Result:
        """Run a command that must succeed."""
        result = self.start(*arguments, **env).wait()
        if result.returncode:
            raise AssertionError(f"{name}: {arguments}: exit {result.returncode}\n{result.stderr[-2000:]}")
        return result

    def reference_run(self, kind: SmallRun) -> Path:
        """Return the uninterrupted reference run, trained if it does not exist yet."""
        run = self.runs / f"reference_{kind.name}"
        if not run.exists():
            self.finish(run.name, *kind.options, f"hydra.run.dir=outputs/{run.name}")
        return run

    def differences(self, run: Path, kind: SmallRun = V1) -> list[str]:
        """Return the differences of a finished run from the reference run."""
        return differing(run, self.reference_run(kind))

    def run_trials(self, do: Callable[[T], list[str]], trials: Iterable[T]) -> list[str]:
        """Run trials, two at a time, and return the failures."""

        def one(trial: T) -> list[str]:
            try:
                return [f"{trial}: {what}" for what in do(trial)]
            except Exception as error:  # a broken trial counts as failed
                return [f"{trial}: {type(error).__name__}: {str(error)[-600:]}"]

        with ThreadPoolExecutor(2) as pool:
            return [what for failed in pool.map(one, trials) for what in failed]

    def close(self) -> None:
        self.forks.__exit__()
        shutil.rmtree(self.home, ignore_errors=True)


def find_problems(result: Result, status: int, *messages: str) -> list[str]:
    """Return deviations of a result from the expected exit status and messages."""
    text = result.stdout + result.stderr
    found = [] if result.returncode == status else [f"exit {result.returncode}, not {status}: {text[-800:]}"]
    found += [f"a traceback: {text[-800:]}"] if "Traceback" in text else []
    return found + [f"lacks {words!r}: {text[-800:]}" for words in messages if words not in text]
