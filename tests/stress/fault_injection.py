"""Inject faults into a run at counted events, from inside, so that they are reproducible.

A plan is a list of [event, number, action] in the environment variable FAULT_PLAN. Events: `draw` (a phantom
image is written), `prepare` (an image is cached), `step`, `validate` (a batch), `write` (a checkpoint is half
written), `move` and `moved` (before and after a file is moved into place), `figure` (of the report). Actions:
`kill`, `term`, `term all` (the command's process group), `int`, `int twice`, `fill` and `free` (the disk).
"""

import os
import resource
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

Plan = list[tuple[str, int, str]]


def install(plan: Plan) -> None:
    """Wrap the project's functions to count their calls and run the actions of the plan."""
    import torch
    from matplotlib.figure import Figure

    from boneage_pl.data.cache.store import CacheWriter
    from boneage_pl.data.phantom import dataset
    from boneage_pl.model.lightning_module import BoneAgeModule
    from boneage_pl.training.callbacks import checkpointing
    from boneage_pl.utils.progress import progress

    reached: Counter[str] = Counter()

    def happened(event: str) -> None:
        reached[event] += 1
        for of, number, action in plan:
            if (of, number) == (event, reached[event]):
                _ACTIONS[action]()

    def before(owner: Any, name: str, event: str, after: str = "") -> None:
        real: Callable[..., Any] = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            happened(event)
            result = real(*args, **kwargs)
            if after:
                happened(after)
            return result

        setattr(owner, name, wrapped)

    def drawn(*args: Any, **kwargs: Any) -> Iterator[Any]:
        for image in progress(*args, **kwargs):
            happened("draw")
            yield image

    dataset.progress = drawn  # type: ignore[attr-defined]
    before(CacheWriter, "write", "prepare")
    before(BoneAgeModule, "training_step", "step")
    before(BoneAgeModule, "validation_step", "validate")
    before(Figure, "savefig", "figure")
    before(Path, "replace", "move", "moved")

    def half_written(state: Any, file: Any) -> None:
        content = BytesIO()
        torch.save(state, content)
        file.write(content.getvalue()[: len(content.getvalue()) // 2])
        file.flush()
        happened("write")
        file.write(content.getvalue()[len(content.getvalue()) // 2 :])

    class Torch:
        save = staticmethod(half_written)

    checkpointing.torch = Torch  # type: ignore[attr-defined, assignment]


def _send(*numbers: signal.Signals) -> Callable[[], None]:
    def send() -> None:
        for number in numbers:
            os.kill(os.getpid(), number)

    return send


def _term_all() -> None:
    """Send SIGTERM to the command's process group from outside it, as systemd does."""
    send = f"import os; os.killpg({os.getpgrp()}, {int(signal.SIGTERM)})"
    subprocess.run([sys.executable, "-c", send], start_new_session=True, check=True)


def _fill() -> None:
    """Fill the small disk in FILL, or else limit the size of files of this process."""
    if "FILL" not in os.environ:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
        return
    for size in (2**16, 1):
        with Path(os.environ["FILL"], "filler").open("ab", buffering=0) as file:
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                pass


def _free() -> None:
    if "FILL" not in os.environ:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        return
    Path(os.environ["FILL"], "filler").unlink()


_ACTIONS: dict[str, Callable[[], None]] = {
    "kill": _send(signal.SIGKILL),
    "term": _send(signal.SIGTERM),
    "term all": _term_all,
    "int": _send(signal.SIGINT),
    "int twice": _send(signal.SIGINT, signal.SIGINT),
    "fill": _fill,
    "free": _free,
}
