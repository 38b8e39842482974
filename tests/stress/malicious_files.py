"""Untrusted checkpoints and run folders: they are rejected, and no code in them runs."""

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.stress.harness import V1, Row, Workspace, find_problems


class Code:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.mark,)


def _changed(change: Callable[[dict[str, Any], Path], Any]) -> Callable[[Path, Path, Path], None]:
    def write(whole: Path, path: Path, mark: Path) -> None:
        content = torch.load(whole, weights_only=True)
        change(content, mark)
        torch.save(content, path)

    return write


def _weights(content: dict[str, Any], **changed: Any) -> None:
    content["state_dict"] = changed


def _shapes(content: dict[str, Any], _: Path) -> None:
    content["state_dict"]["inference.network.age.weight"] = torch.zeros(7, 33)


def _moments(content: dict[str, Any], _: Path) -> None:
    for state in content["optimizer_states"][0]["state"].values():
        state["exp_avg"] = torch.zeros(3)
    content["state_dict"].popitem()


def _bomb(whole: Path, path: Path, _: Path) -> None:
    with zipfile.ZipFile(whole) as real, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        for part in real.infolist():
            bomb.writestr(part.filename, bytes(300_000_000) if "/data/" in part.filename else real.read(part))
            if "/data/0" in part.filename:
                break


def _split(**changed: Any) -> Callable[[Path, Path, Path], None]:
    return _changed(lambda c, _: c["boneage_pl"]["split"].update(changed))


def _shared(content: dict[str, Any], _: Path) -> None:
    split = content["boneage_pl"]["split"]
    split["validation"] = [*split["validation"][1:], split["train"][0]]


MALICIOUS: dict[str, Callable[[Path, Path, Path], None]] = {
    "code in place of the record": _changed(lambda c, mark: c.update(boneage_pl=Code(mark))),
    "code among the weights": _changed(lambda c, mark: c["state_dict"].update(x=Code(mark))),
    "code in the optimizer's state": _changed(lambda c, mark: c["optimizer_states"].append(Code(mark))),
    "no weights": _changed(lambda c, _: c.pop("state_dict")),
    "weights of other names": _changed(lambda c, _: _weights(c, x=torch.zeros(1))),
    "weights of other shapes": _changed(_shapes),
    "weights that are text": _changed(lambda c, _: _weights(c, **{"inference.network.age.weight": "x"})),
    "a record of other kinds": _changed(lambda c, _: c.update(boneage_pl={"model": [], "split": "x"})),
    "a split without hashes": _split(file_sha256={}),
    "a split without edges": _split(edges=[]),
    "a split with an empty side": _split(train=[]),
    "a split with numbers as ids": _split(validation=[1, 2]),
    "a split without age_bins": _changed(lambda c, _: c["boneage_pl"]["split"].pop("age_bins")),
    "a disjoint split that shares an image": _changed(_shared),
    "moments of other shapes": _changed(_moments),
    "another tool's checkpoint": lambda _, path, __: torch.save({"state_dict": {}}, path),
    "truncated": lambda whole, path, _: path.write_bytes(whole.read_bytes()[:-5000]) and None,
    "a zip bomb": _bomb,
    "a plain text file": lambda _, path, __: path.write_text("weights\n") and None,
    "an empty file": lambda _, path, __: path.touch(),
}


def checkpoints(workspace: Workspace, count: int | None = None) -> Row:
    """Start from each malicious checkpoint, and resume a run that contains only it."""
    mark = workspace.home / "mark"

    def trial(name: str) -> list[str]:
        at = workspace.home / "malicious" / name.replace(" ", "_").replace("'", "")
        at.mkdir(parents=True)
        MALICIOUS[name](workspace.reference_run(V1) / "checkpoints" / "last.ckpt", at / "x.ckpt", mark)
        start = workspace.start(*V1.options, f"ckpt={at}/x.ckpt", f"hydra.run.dir={at}/new").wait()
        found = find_problems(start, 2, "x.ckpt")
        run = at / "run"
        shutil.copytree(workspace.reference_run(V1), run, ignore=shutil.ignore_patterns("report", "*.ckpt"))
        for checkpoint in ("last", "previous", "best"):
            shutil.copy(at / "x.ckpt", run / "checkpoints" / f"{checkpoint}.ckpt")
        found += find_problems(workspace.start(f"resume={run}", *V1.own).wait(), 2, "last.ckpt")
        found += ["its code ran"] if mark.exists() else []
        return found + (["left a run folder"] if (at / "new").exists() else [])

    names = list(MALICIOUS)[:count]
    failed = workspace.run_trials(trial, names)
    return Row("malicious checkpoints, by ckpt= and by resume=", len(names), failed, "rejected; no code ran")


def folders(workspace: Workspace) -> Row:
    """Resume run folders whose configuration contains code."""
    mark = workspace.home / "mark"
    log = f"version: 1\n    handlers: {{x: {{(): pathlib.Path.touch, self: {mark}}}}}"
    named = {
        "a function as the network": ("config", "tests.helpers.tiny_models.Tiny", "os.system"),
        "a function reached through a module of ours": (
            "config",
            "boneage_pl.data.datamodule.BoneAgeDataModule",
            "boneage_pl.utils.hardware.ctypes.CDLL",
        ),
        "a function behind an interpolation": (
            "config",
            "optimizer:",
            "evil: \"${oc.decode:'{_target_: os.system}'}\"\noptimizer:",
        ),
        "code in the logging": ("hydra", "version: 1", log),
    }

    def trial(name: str) -> list[str]:
        file, old, new = named[name]
        run = workspace.home / "malicious" / name.replace(" ", "_")
        shutil.copytree(workspace.reference_run(V1), run, ignore=shutil.ignore_patterns("report"))
        path = run / ".hydra" / f"{file}.yaml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))
        result = workspace.start(f"resume={run}", *([] if "tiny" in old else V1.own)).wait()
        found = [] if file == "hydra" else find_problems(result, 2, "is not one of this project's classes")
        return found + (["its code ran"] if mark.exists() else [])

    failed = workspace.run_trials(trial, named)
    return Row(
        "run folders with code in their configuration, by resume=",
        len(named),
        failed,
        "rejected or ignored; no code ran",
    )


def damaged(workspace: Workspace) -> Row:
    """Damage best.ckpt of a run, and train it for one more epoch."""
    run = workspace.runs / "damaged_best"
    shutil.copytree(workspace.reference_run(V1), run)
    best = run / "checkpoints" / "best.ckpt"
    content = bytearray(best.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 100] = bytes(100)  # longer than the padding between tensors
    best.unlink()  # it may be a hard link of last.ckpt
    best.write_bytes(content)
    last = run / "checkpoints" / "last.ckpt"
    epochs = torch.load(last, weights_only=True)["boneage_pl"]["epochs"]
    lowest = min(range(len(epochs)), key=lambda n: epochs[n]["val_mae"])
    result = workspace.start(f"resume={run}", *V1.own, f"trainer.max_epochs={len(epochs) + 1}").wait()
    kept = lowest >= len(epochs) - 2  # the weights are also in last.ckpt or previous.ckpt
    failed = find_problems(result, 0, *([] if kept else ["is damaged or missing"]))
    failed += [] if (run / "report" / "summary.json").exists() else ["no report"]
    return Row("a damaged best.ckpt, by resume=", 1, failed, "detected at the start; the run finishes")
