"""What every trial has: a folder to work in, the small run, and the run that nothing interrupted."""

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
class Recipe:
    """A small run of 5 epochs.

    Args:
        name: of the run that nothing interrupts.
        options: of the command.
        own: those that a resumed run must name again.
        steps, validations: batches of an epoch, at least.
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
V1 = Recipe("v1", ("+experiment=v1", *_COMMON, *_PLATEAU, *_TINY), _TINY, 8, 3)
# augmentations, a schedule by step, layers at rates of their own, a distribution
V3 = Recipe(
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
    """A row of the table: the fault, how often, and the result."""

    what: str
    tried: int
    failed: list[str]
    found: str


class Bench:
    """A folder with the small data set and its whole run, and a process that forks commands."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        # one thread: the trials run two at a time
        self.forks = Forks(folder / "commands", OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
        self.runs = self.home / "outputs"
        self.whole(V1)

    def start(self, *arguments: str, plan: Plan | None = None, **env: str) -> Running:
        """Start `python -m boneage_pl`, with what is to happen to it."""
        if plan:
            env["FAULT_PLAN"] = json.dumps(plan)
        return self.forks.start("boneage_pl", *arguments, cwd=self.home, **env)

    def finish(self, name: str, *arguments: str, **env: str) -> Result:
        """Run a command that must succeed."""
        result = self.start(*arguments, **env).wait()
        if result.returncode:
            raise AssertionError(f"{name}: {arguments}: exit {result.returncode}\n{result.stderr[-2000:]}")
        return result

    def whole(self, recipe: Recipe) -> Path:
        """Return the run of a recipe that nothing interrupted, made where it is missing."""
        run = self.runs / f"whole_{recipe.name}"
        if not run.exists():
            self.finish(run.name, *recipe.options, f"hydra.run.dir=outputs/{run.name}")
        return run

    def same(self, run: Path, recipe: Recipe = V1) -> list[str]:
        """Return what a run that must be finished differs in from the whole one."""
        return differing(run, self.whole(recipe))

    def two_at_a_time(self, do: Callable[[T], list[str]], trials: Iterable[T]) -> list[str]:
        """Do the trials, two at a time, and return what failed."""

        def one(trial: T) -> list[str]:
            try:
                return [f"{trial}: {what}" for what in do(trial)]
            except Exception as error:  # a trial that breaks has failed, and the others go on
                return [f"{trial}: {type(error).__name__}: {str(error)[-600:]}"]

        with ThreadPoolExecutor(2) as pool:
            return [what for failed in pool.map(one, trials) for what in failed]

    def close(self) -> None:
        self.forks.__exit__()
        shutil.rmtree(self.home, ignore_errors=True)


def complaints(result: Result, status: int, *messages: str) -> list[str]:
    """Return what is wrong with how a command ended."""
    text = result.stdout + result.stderr
    found = [] if result.returncode == status else [f"exit {result.returncode}, not {status}: {text[-800:]}"]
    found += [f"a traceback: {text[-800:]}"] if "Traceback" in text else []
    return found + [f"does not say {words!r}: {text[-800:]}" for words in messages if words not in text]
