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
_main_process = 0  # the training process, whose forks inherit its handlers


class StopRequested(BaseException):
    """Raised to stop a run on a signal; not an `Exception`, like `KeyboardInterrupt`."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def handle_stop_signals() -> Iterator[None]:
    """Raise `StopRequested` on SIGINT and SIGTERM inside the block."""
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
    """Handles the signals in place of Lightning, which validates first and ignores a second Ctrl-C.

    In distributed training rank 0 stops the others, which have no unsaved state.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Install the handlers, after Lightning has installed its own."""
        if self._before or threading.current_thread() is not threading.main_thread():
            return
        for number in _SIGNALS:
            handler = self._request_stop if trainer.is_global_zero else signal.SIG_IGN
            self._before[number] = signal.signal(number, handler)

    def on_validation_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Install the handlers for the validation before the first step too."""
        self.on_train_start(trainer)

    def teardown(self, *_: Any, **__: Any) -> None:
        """Restore the previous handlers."""
        while self._before:
            signal.signal(*self._before.popitem())

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Stop if a stop is requested."""
        if self.received is None:
            return
        if trainer.world_size == 1:
            raise StopRequested(self.received)
        # a normal exit would deadlock with the other ranks
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
            return  # a loader process, which the training process ends
        if self.received is not None and number == signal.SIGINT:
            _print_line(f"Stopped. Resume with\n  {resume_command(self.run)}")
            os._exit(128 + number)
        self.received = number
        _print_line("Stopping after this step. Press Ctrl-C again to stop immediately.")


def print_stopped(number: int, run: Path) -> None:
    """Log the command that resumes the run."""
    log.info("\nStopped by %s. Resume with\n  %s", signal.Signals(number).name, resume_command(run))


def _print_line(text: str) -> None:
    os.write(2, f"\n{text}\n".encode())  # print is not reentrant
