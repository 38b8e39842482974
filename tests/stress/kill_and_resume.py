"""Kill or signal runs at any moment and resume them: the result equals the reference run."""

import random
from collections.abc import Iterator

from tests.stress.fault_injection import Plan
from tests.stress.harness import EPOCHS, V1, Row, SmallRun, Workspace, find_problems

# minimum number of files that a run moves into place: 2 of the cache, run.json and the initial weights, then
# metrics.csv, run.json, previous and last in each epoch
MOVES = 2 + 2 + EPOCHS * 4
LOADERS = "data.num_workers=2"  # as on a GPU


def kills(workspace: Workspace, kind: SmallRun, count: int, seed: int) -> Row:
    """Kill runs at `count` random moments by `seed`; some again after resuming.

    Every third run has loader workers.
    """
    moments = _moments(random.Random(seed), kind)
    workspace.reference_run(kind)
    trials = [(number, next(moments)) for number in range(count)]
    again = dict(zip(range(0, count, 5), _again(random.Random(seed + 1)), strict=False))
    died = 0

    def trial(which: tuple[int, Plan]) -> list[str]:
        nonlocal died
        number, plan = which
        name = f"{kind.name}_{seed}_{number}"
        run = workspace.runs / f"killed_{name}"
        where = [f"data.cache_dir=caches/{name}", *([LOADERS] if number % 3 == 0 else [])] + (
            [f"data.root=data/{name}"] if plan[0][0] == "draw" else []
        )
        status = workspace.start(*kind.options, *where, f"hydra.run.dir={run}", plan=plan).wait().returncode
        if status != -9:
            return [f"was not killed: exit {status}"]
        died += 1
        if number in again:
            status = workspace.start(f"resume={run}", *kind.own, plan=again[number]).wait().returncode
            died += status == -9
        if status:
            workspace.finish(str(plan), f"resume={run}", *kind.own)
        return workspace.differences(run, kind)

    failed = workspace.run_trials(trial, trials)
    found = f"{died} kills; every run bit-identical in the end"
    return Row(f"kill -9 of {kind.name}, then resume=", count, failed, found)


def _moments(draw: random.Random, kind: SmallRun) -> Iterator[Plan]:
    """Yield events of every kind in turn, each with a random number."""
    while True:
        yield [("step", draw.randint(2, kind.steps * EPOCHS), "kill")]
        yield [("write", draw.randint(1, EPOCHS), "kill")]
        yield [("prepare", draw.randint(1, 80), "kill")]
        yield [("move", draw.randint(1, MOVES), "kill")]
        yield [("validate", draw.randint(1, kind.validations * EPOCHS), "kill")]
        yield [("figure", draw.randint(1, 2), "kill")]
        yield [("step", 1, "kill")]
        yield [("moved", draw.randint(1, MOVES), "kill")]
        yield [("draw", draw.randint(1, 80), "kill")]


def _again(draw: random.Random) -> Iterator[Plan]:
    while True:
        yield [("step", draw.randint(1, 8), "kill")]
        yield [("write", 1, "kill")]


SIGNALS = {
    "SIGTERM": ("term", 143),
    "SIGTERM to all processes": ("term all", 143),
    "SIGINT": ("int", 130),
    "SIGINT twice": ("int twice", 130),
}


HARDEST = ("SIGTERM to all processes", "SIGINT twice")  # the others are in tests/training/test_resume.py


def signals(workspace: Workspace, name: str, count: int) -> Row:
    """Send one of `SIGNALS` at `count` moments: caching, first step, mid-epoch, validation, report."""
    action, status = SIGNALS[name]
    moments = [("step", 21), ("prepare", 40), ("validate", 8), ("figure", 2), ("step", 1)][:count]

    def trial(moment: tuple[str, int]) -> list[str]:
        run = workspace.runs / f"{action.replace(' ', '_')}{moment[0]}{moment[1]}"
        cache = f"data.cache_dir=caches/{run.name}"
        plan: Plan = [(*moment, action)]
        result = workspace.start(
            *V1.options, cache, LOADERS, f"hydra.run.dir=outputs/{run.name}", plan=plan
        ).wait()
        found = find_problems(result, status, f"python -m boneage_pl resume=outputs/{run.name}")
        if action != "int twice" and moment[0] == "step":  # the current step is finished
            found += find_problems(result, status, "Stopping after this step")
        if not found:
            workspace.finish(run.name, f"resume={run}", *V1.own)
            found = workspace.differences(run)
        return found

    failed = workspace.run_trials(trial, moments)
    return Row(
        f"{name}, then resume=",
        count,
        failed,
        "stopped and printed the resume command; bit-identical in the end",
    )
