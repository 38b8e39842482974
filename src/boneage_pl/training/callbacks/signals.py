"""Stop gracefully on SIGINT and SIGTERM."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from boneage_pl.cli.overrides import resume_command

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_main_process = 0  # the process that trains: those that it forks inherit its handlers


class StopRequested(BaseException):
    """A signal requested the run to stop; like `KeyboardInterrupt`, no `Exception`."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def handle_stop_signals() -> Iterator[None]:
    """Raise `StopRequested` on Ctrl-C and SIGTERM inside the block, which may handle them itself."""
    global _main_process
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _main_process = os.getpid()
    before = {number: signal.signal(number, _raise_stop) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise_stop(number: int, _: Any) -> None:
    if os.getpid() == _main_process:
        raise StopRequested(number)


class GracefulStop(Callback):
    """Takes the signals over from Lightning, which validates first and ignores a second Ctrl-C.

    Of several processes the first decides: the others hold nothing that is not saved, and end with it.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Install the handlers: Lightning has installed its own by now, joined to what was there."""
        if self._before or threading.current_thread() is not threading.main_thread():
            return
        for number in _SIGNALS:
            handler = self._request_stop if trainer.is_global_zero else signal.SIG_IGN
            self._before[number] = signal.signal(number, handler)

    def on_validation_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Do the same for the validation before the first step."""
        self.on_train_start(trainer)

    def teardown(self, *_: Any, **__: Any) -> None:
        """Put back what was before."""
        while self._before:
            signal.signal(*self._before.popitem())

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Stop if a stop is requested."""
        if self.received is None:
            return
        if trainer.world_size == 1:
            raise StopRequested(self.received)
        # the others would wait for this process's part of the next step, and it for theirs while it cleans up
        print_stopped(self.received, self.run)
        if trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(signal.SIGKILL)
        sys.stdout.flush()
        os._exit(128 + self.received)

    def on_validation_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Stop if a stop is requested."""
        self.on_train_batch_end(trainer)

    def _request_stop(self, number: int, _: Any) -> None:
        if os.getpid() != _main_process:
            return  # a loader process: Ctrl-C reaches it too, and this one ends it
        if self.received is not None and number == signal.SIGINT:
            _print_line(f"stopped at once; go on with\n  {resume_command(self.run)}")
            os._exit(128 + number)
        self.received = number
        _print_line("stopping after this step; Ctrl-C stops at once")


def print_stopped(number: int, run: Path) -> None:
    """Log the command that resumes the run."""
    log.info("\nstopped by %s; go on with\n  %s", signal.Signals(number).name, resume_command(run))


def _print_line(words: str) -> None:
    os.write(2, f"\n{words}\n".encode())  # a signal may come in the middle of a print
