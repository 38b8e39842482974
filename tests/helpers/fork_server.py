"""Fork server: runs commands in forks of a process that has imported torch, which saves seconds each.

A fork runs the module as `python -m` does, with three differences: existing phantom images are copied, the
figures of reports are blank, and Hydra composes the configuration once. `Forks` starts the server, which is
this module.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from tests.conftest import Result

T = TypeVar("T")
CHECKOUT = Path(__file__).parents[2]


@dataclass
class Running:
    """A running command."""

    arguments: list[str]
    folder: Path  # of its output

    @property
    def pid(self) -> int:
        while not (text := self._read("pid")):
            time.sleep(0.002)
        return int(text)

    def poll(self) -> int | None:
        text = self._read("status")
        return int(text) if text else None

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float = 300) -> Result:
        until = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > until:
                os.kill(self.pid, signal.SIGKILL)
                raise TimeoutError(f"{self.arguments}: {self._read('err')[-2000:]}")
            time.sleep(0.005)
        return Result(self.arguments, status, self._read("out"), self._read("err"))

    def _read(self, name: str) -> str:
        path = self.folder / name
        return path.read_text(errors="replace") if path.exists() else ""


class Forks:
    """A fork server."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.folder, self.count = folder, 0
        folder.mkdir(parents=True, exist_ok=True)
        paths = f"{CHECKOUT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.fork_server"],
            stdin=subprocess.PIPE,
            text=True,
            cwd=CHECKOUT,
            env={**os.environ, "PYTHONPATH": paths, **env},
        )

    def start(self, module: str, *arguments: str, cwd: Path, **env: str) -> Running:
        self.count += 1
        folder = self.folder / str(self.count)
        folder.mkdir()
        command = {"module": module, "arguments": arguments, "cwd": str(cwd), "env": env, "to": str(folder)}
        assert self.process.stdin
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return Running([module, *arguments], folder)

    def run(self, *arguments: str, cwd: Path, check: bool = True, timeout: float = 600, **env: str) -> Result:
        """Run `python -m boneage_pl` and wait for it."""
        result = self.start("boneage_pl", *arguments, cwd=cwd, **env).wait(timeout)
        assert not check or result.returncode == 0, result.stdout + result.stderr
        return result

    def __enter__(self) -> "Forks":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        assert self.process.stdin
        self.process.stdin.write("\n")  # a leftover loader process may hold the pipe open
        self.process.stdin.close()
        self.process.wait()


def keep_phantoms(folder: Path) -> None:
    """Copy phantom images that another command has drawn, since many tests use the same."""
    from boneage_pl.data.phantom import dataset

    drawn = dataset.parallel_map

    def in_processes(do: Callable[[Any], T], tasks: Sequence[Any], workers: int) -> Iterator[T | None]:
        places = {task[0]: folder / "_".join(str(part) for part in task[1:]) for task in tasks}
        missing = [task for task in tasks if not places[task[0]].exists()]
        for task in tasks:
            if task not in missing:
                shutil.copyfile(places[task[0]], task[0])
                yield None
        yield from drawn(do, missing, workers)
        folder.mkdir(exist_ok=True)
        for path, *_ in missing:
            beside = folder / f"{os.getpid()}.tmp"
            shutil.copyfile(path, beside)
            beside.rename(places[path])

    dataset.parallel_map = in_processes


def leave_figures_blank() -> None:
    """Save figures without drawing them, half of the time of a small training; FIGURES=1 draws them."""
    from matplotlib.figure import Figure

    from boneage_pl.evaluation import templating

    templating.figure_to_png.__defaults__ = (30,)
    Figure.draw = lambda *_: None  # type: ignore[method-assign]


def compose_once() -> None:
    """Skip the composition by which Hydra finds out whether a configuration is a sweep."""
    from hydra._internal.hydra import Hydra
    from hydra.types import RunMode

    real = Hydra.get_mode

    def get_mode(self: Hydra, config_name: str | None, overrides: list[str]) -> Any:
        sweeps = any("v3_ensemble" in option or "hparams_search" in option for option in overrides)
        return real(self, config_name, overrides) if sweeps else RunMode.RUN

    Hydra.get_mode = get_mode  # type: ignore[method-assign]


def serve() -> None:
    import lightning.pytorch  # noqa: F401
    import torch.utils.tensorboard  # noqa: F401
    import torchvision  # noqa: F401

    import boneage_pl.train  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while (line := sys.stdin.readline()).strip():
        command = json.loads(line)
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _supervise(command)


def _supervise(command: dict[str, Any]) -> None:
    """Fork the command and write its process id and exit status."""
    folder = Path(command["to"])
    pid = os.fork()
    if pid == 0:
        _run_command(command)
    _write(folder / "pid", pid)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    _write(folder / "status", status)
    os._exit(0)


def _write(path: Path, value: int) -> None:
    beside = path.with_suffix(".tmp")
    beside.write_text(str(value))
    beside.rename(path)


def _run_command(command: dict[str, Any]) -> None:
    import runpy
    import traceback

    status = 1
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{command['to']}/{name}", os.O_WRONLY | os.O_CREAT, 0o644), number)
    os.environ.update(command["env"])
    os.chdir(command["cwd"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = [command["module"], *command["arguments"]]
    keep_phantoms(Path(command["to"]).parent / "phantoms")
    if "FIGURES" not in command["env"]:
        leave_figures_blank()
    compose_once()
    try:
        if plan := command["env"].get("FAULT_PLAN"):
            from tests.stress.fault_injection import install

            install(json.loads(plan))
        runpy.run_module(command["module"], run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1 if stop.code else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        import atexit

        atexit._run_exitfuncs()
        os._exit(status)


if __name__ == "__main__":
    serve()
