"""Killed, or signaled to stop, at any moment, and resumed until done: the run that nothing interrupted."""

import random
from collections.abc import Iterator

from tests.stress.fault_injection import Plan
from tests.stress.harness import EPOCHS, V1, Bench, Recipe, Row, complaints

# files that a run moves into place at least: 2 of the store, run.json and the weights before the first step,
# then metrics.csv, run.json, previous and last each epoch
MOVES = 2 + 2 + EPOCHS * 4
LOADERS = "data.num_workers=2"  # as beside a GPU


def kills(bench: Bench, recipe: Recipe, count: int, seed: int) -> Row:
    """Kill runs of a recipe at `count` moments, drawn from `seed`; some again when they are resumed.

    Every third run has loader processes.
    """
    moments = _moments(random.Random(seed), recipe)
    bench.whole(recipe)
    trials = [(number, next(moments)) for number in range(count)]
    again = dict(zip(range(0, count, 5), _again(random.Random(seed + 1)), strict=False))
    died = 0

    def trial(which: tuple[int, Plan]) -> list[str]:
        nonlocal died
        number, plan = which
        name = f"{recipe.name}_{seed}_{number}"
        run = bench.runs / f"killed_{name}"
        where = [f"data.cache_dir=stores/{name}", *([LOADERS] if number % 3 == 0 else [])] + (
            [f"data.root=data/{name}"] if plan[0][0] == "draw" else []
        )
        status = bench.start(*recipe.options, *where, f"hydra.run.dir={run}", plan=plan).wait().returncode
        if status != -9:
            return [f"was not killed: exit {status}"]
        died += 1
        if number in again:
            status = bench.start(f"resume={run}", *recipe.own, plan=again[number]).wait().returncode
            died += status == -9
        if status:
            bench.finish(str(plan), f"resume={run}", *recipe.own)
        return bench.same(run, recipe)

    failed = bench.two_at_a_time(trial, trials)
    found = f"{died} kills; every run bit-identical in the end"
    return Row(f"kill -9 of {recipe.name}, then resume=", count, failed, found)


def _moments(draw: random.Random, recipe: Recipe) -> Iterator[Plan]:
    """Yield moments of every kind in turn, each at a random place of its kind."""
    while True:
        yield [("step", draw.randint(2, recipe.steps * EPOCHS), "kill")]
        yield [("write", draw.randint(1, EPOCHS), "kill")]
        yield [("prepare", draw.randint(1, 80), "kill")]
        yield [("move", draw.randint(1, MOVES), "kill")]
        yield [("validate", draw.randint(1, recipe.validations * EPOCHS), "kill")]
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


HARDEST = ("SIGTERM to all processes", "SIGINT twice")  # tests/training/test_resume.py has the others


def signals(bench: Bench, name: str, count: int) -> Row:
    """Send one of `SIGNALS` at `count` moments: preparation, first step, mid-epoch, validation, report."""
    deed, status = SIGNALS[name]
    moments = [("step", 21), ("prepare", 40), ("validate", 8), ("figure", 2), ("step", 1)][:count]

    def trial(moment: tuple[str, int]) -> list[str]:
        run = bench.runs / f"{deed.replace(' ', '_')}{moment[0]}{moment[1]}"
        store = f"data.cache_dir=stores/{run.name}"
        plan: Plan = [(*moment, deed)]
        result = bench.start(
            *V1.options, store, LOADERS, f"hydra.run.dir=outputs/{run.name}", plan=plan
        ).wait()
        found = complaints(result, status, f"python -m boneage_pl resume=outputs/{run.name}")
        if deed != "int twice" and moment[0] == "step":  # the step in hand, and none after it
            found += complaints(result, status, "Stopping after this step")
        if not found:
            bench.finish(run.name, f"resume={run}", *V1.own)
            found = bench.same(run)
        return found

    failed = bench.two_at_a_time(trial, moments)
    return Row(
        f"{name}, then resume=",
        count,
        failed,
        "stopped and printed the resume command; bit-identical in the end",
    )
