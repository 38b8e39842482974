"""A callback that measures the steps of a training."""

import json
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

READ, MADE = torch.ops.aten._local_scalar_dense.default, torch.ops.aten.lift_fresh.default


class Synchronizations(TorchDispatchMode):
    """Finds on the CPU what would synchronize a GPU: values read, tensors made from Python numbers.

    The loader's are not counted. Asserts that no tensor is float64, which Apple's GPUs do not support.
    """

    def __init__(self) -> None:
        super().__init__()
        self.where: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        assert not (isinstance(result, Tensor) and result.dtype == torch.float64), func
        if func in (READ, MADE):
            callers = traceback.extract_stack()[-2::-1]
            caller = next(frame for frame in callers if "/torch/" not in frame.filename)
            if not caller.filename.endswith("data/dataset.py"):
                self.where.append(f"{caller.filename}:{caller.lineno}")
        return result


class Meter(Callback):
    """Measures the steps of a training and writes the results as JSON.

    Warm-up steps are followed by timed ones, profiled ones, and ones whose synchronizations are counted; then
    the transforms alone are timed. An epoch's time is that of the second.

    Args:
        out: JSON file.
        warm, timed, profiled, watched: numbers of steps.
    """

    def __init__(
        self, out: str, warm: int = 10, timed: int = 30, profiled: int = 5, watched: int = 10
    ) -> None:
        self.out = Path(out)
        self.ends = np.cumsum([warm, timed, profiled, watched]).tolist()
        self.results: dict[str, Any] = {}
        self.epochs: list[float] = []
        self.synchronized: list[str] = []

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Start to time the first step.

        Raises:
            ValueError: an epoch has too few steps.
        """
        if trainer.num_training_batches < self.ends[-1]:
            raise ValueError(
                f"an epoch has {trainer.num_training_batches} steps; at least {self.ends[-1]} are needed"
            )
        self.cuda = module.device.type == "cuda"
        self.begun = self._now()

    def on_train_epoch_start(self, *_: Any) -> None:
        """Record the start of an epoch."""
        self.epochs.append(self._now())

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, _outputs: Any, batch: Any, _batch_idx: int
    ) -> None:
        """Switch to the next measurement after the last step of one."""
        warm, timed, profiled, watched = self.ends
        step = trainer.global_step
        if step == 1:
            self.results["first_step_s"] = self._now() - self.begun
        if step == warm:
            self.begun = self._now()
        elif step == timed:
            self.seconds = (self._now() - self.begun) / (timed - warm)
            self.batch = len(batch["row"])
            self.results |= {"images_per_s": self.batch / self.seconds, "step_ms": 1000 * self.seconds}
            self.profile = profile(activities=[ProfilerActivity.CUDA if self.cuda else ProfilerActivity.CPU])
            self.profile.__enter__()
        elif step == profiled:
            self._now()
            self.profile.__exit__(None, None, None)
            in_kernels = busy(self.profile, cuda=self.cuda) / (profiled - timed)
            self.results["kernels_share"] = in_kernels / self.seconds
            self.watch = synchronizations(self.synchronized, cuda=self.cuda)
            self.watch.__enter__()
        elif step == watched:
            self.watch.__exit__(None, None, None)
            self.results["synchronizations"] = len(self.synchronized) / (watched - profiled)
            self.results["transforms_ms"] = 1000 * self._transforms(trainer, module)

    def on_train_end(self, *_: Any) -> None:
        """Write the results."""
        self.results["epoch_s"] = self.epochs[2] - self.epochs[1]  # the first contains the measurements
        self.results["synchronized"] = sorted(set(self.synchronized))
        if self.cuda:
            self.results["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
        self.out.write_text(json.dumps(self.results))

    def _transforms(self, trainer: L.Trainer, module: L.LightningModule, times: int = 10) -> float:
        """Return the seconds of the transforms and normalization of a batch."""
        rows = [(row, 0) for row in range(self.batch)]
        batch = trainer.train_dataloader.dataset[rows]  # type: ignore[union-attr]
        batch = trainer.datamodule.transfer_batch_to_device(batch, module.device, 0)  # type: ignore[attr-defined]
        module.on_after_batch_transfer(batch, 0)
        begun = self._now()
        for _ in range(times):
            module.on_after_batch_transfer(batch, 0)
        return (self._now() - begun) / times

    def _now(self) -> float:
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter()


def busy(profiled: profile, *, cuda: bool) -> float:
    """Return the seconds in which at least one kernel ran (on the CPU: one operation)."""
    kind = torch.autograd.DeviceType.CUDA if cuda else torch.autograd.DeviceType.CPU
    events = [e for e in profiled.events() or [] if e.device_type == kind and not e.is_user_annotation]
    spans = [event.time_range for event in events]
    total, until = 0.0, 0.0
    for span in sorted(spans, key=lambda span: span.start):
        total += max(0.0, span.end - max(span.start, until))
        until = max(until, span.end)
    return total / 1e6


@contextmanager
def synchronizations(where: list[str], *, cuda: bool) -> Iterator[None]:
    """Append `file:line` to `where` for each synchronization of the GPU."""
    if not cuda:
        with Synchronizations() as watch:
            yield
        where += watch.where
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")
    where += [f"{w.filename}:{w.lineno}" for w in caught if "synchronizing CUDA" in str(w.message)]
