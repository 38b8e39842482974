"""Full disks, and several commands at once on one data folder."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.stress.fault_injection import Plan
from tests.stress.harness import V1, Row, Workspace, find_problems


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[dict[str, str]]:
    """Mount a small disk at `folder` if permitted; yield the environment for `fill`."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    own = subprocess.run(mount, capture_output=True).returncode == 0 if shutil.which("mount") else False
    try:
        yield {"FILL": str(folder)} if own else {}
    finally:
        if own:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def full_disks(workspace: Workspace, moments: tuple[str, ...] = ("caching", "checkpoint", "report")) -> Row:
    """Fill the disk at these moments; existing files stay intact, and the run ends like the reference."""
    trials = {"caching": _caching, "checkpoint": _checkpoint, "report": _report}
    own = []

    def trial(moment: str) -> list[str]:
        with small_disk(workspace.home / f"small_{moment}", 20) as env:
            own.append("FILL" in env)
            return trials[moment](workspace, f"small_{moment}", env)

    failed = workspace.run_trials(trial, moments)
    how = "a tmpfs" if all(own) else "the process's own limit"
    return Row(
        f"a disk that fills up during {', '.join(moments)} ({how})",
        len(moments),
        failed,
        "one message; older files whole; bit-identical in the end",
    )


def _caching(workspace: Workspace, disk: str, env: dict[str, str]) -> list[str]:
    command = [*V1.options, f"data.cache_dir={disk}/cache", "hydra.run.dir=outputs/full_caching"]
    result = workspace.start(*command, plan=[("prepare", 30, "fill")], **env).wait()
    found = find_problems(result, 2, "cannot be written", "data.cache_dir=<folder>")
    (workspace.home / disk / "filler").unlink(missing_ok=True)
    workspace.finish("caching", *command)
    return found + workspace.differences(workspace.runs / "full_caching")


def _checkpoint(workspace: Workspace, disk: str, env: dict[str, str]) -> list[str]:
    run = workspace.home / disk / "run"
    plan: Plan = [("step", 20, "fill"), ("step", 28, "free")]  # across the end of the third epoch
    result = workspace.start(*V1.options, f"hydra.run.dir={run}", plan=plan, **env).wait()
    found = find_problems(result, 0, "last.ckpt could not be saved", "Earlier checkpoints are intact")
    return found + workspace.differences(run)


def _report(workspace: Workspace, disk: str, env: dict[str, str]) -> list[str]:
    run = workspace.home / disk / "run"
    result = workspace.start(*V1.options, f"hydra.run.dir={run}", plan=[("figure", 1, "fill")], **env).wait()
    found = find_problems(result, 2, "cannot be written", f"resume={disk}/run")
    (run.parent / "filler").unlink(missing_ok=True)
    workspace.finish("report", f"resume={run}", *V1.own)
    return found + workspace.differences(run)


def at_once(workspace: Workspace) -> list[Row]:
    """Start two cache builds, two trainings, and two trainings in one run folder at the same time."""
    root = ["data=phantom", "data.root=data/twice", "data.phantom.count=80", "data.phantom.size=128"]
    prepared = [
        workspace.forks.start("boneage_pl.prepare", *root, "data.image_size=107", cwd=workspace.home)
        for _ in range(2)
    ]
    results = [running.wait() for running in prepared]
    failed = [what for result in results for what in find_problems(result, 0, "80 images of 107 px")]
    caches = list((workspace.home / "data" / "twice" / "prepared").glob("*.npy"))
    failed += [] if len(caches) == 1 else [f"{len(caches)} caches"]
    rows = [Row("two cache builds of one data folder at once", 2, failed, "both succeed; one cache")]

    small = [*V1.options, "data.root=data/both", "data.cache_dir=caches/both"]
    both = [workspace.start(*small, f"hydra.run.dir=outputs/both{n}") for n in range(2)]
    failed = [what for running in both for what in find_problems(running.wait(), 0)]
    failed += [what for n in range(2) for what in workspace.differences(workspace.runs / f"both{n}")]
    rows.append(Row("two trainings on one new data folder at once", 2, failed, "both bit-identical"))

    pair = [workspace.start(*V1.options, "hydra.run.dir=outputs/one", f"seed={seed}") for seed in (1, 2)]
    ended = [running.wait() for running in pair]
    rejected = [result for result in ended if result.returncode == 2]
    failed = [] if len(rejected) == 1 else [f"exits {[result.returncode for result in ended]}"]
    failed += [what for result in rejected for what in find_problems(result, 2, "outputs/one")]
    if ended[0].returncode == 0:
        failed += workspace.differences(workspace.runs / "one")
    seed = f"seed: {1 if ended[0].returncode == 0 else 2}\n"
    kept = (workspace.runs / "one" / ".hydra" / "config.yaml").read_text()
    failed += [] if kept.startswith(seed) else ["the rejected one changed the other's record"]
    rows.append(
        Row("two trainings in one run folder at once", 2, failed, "one is rejected and changes nothing")
    )
    return rows
