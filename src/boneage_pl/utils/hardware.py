"""Detect devices, choose precision and worker counts, and describe the hardware."""

import ctypes
import logging
import sys
from pathlib import Path
from typing import Any

import torch

from boneage_pl.errors import BoneAgeError
from boneage_pl.utils.precision import AUTO, normalize_precision
from boneage_pl.utils.processes import cores

log = logging.getLogger(__name__)


def on_gpu(accelerator: str = "auto") -> bool:
    """Whether Lightning's `accelerator` means an NVIDIA or AMD GPU on this machine."""
    return torch.cuda.is_available() and accelerator != "cpu"


def free_memory(device: torch.device) -> int:
    """Return the bytes that are free on a GPU."""
    return int(torch.cuda.mem_get_info(device)[0])


def check_devices(accelerator: str, devices: Any) -> None:
    """Raise if GPUs are configured and missing.

    Args:
        accelerator, devices: as Lightning's Trainer takes them.

    Raises:
        BoneAgeError: saying how many PyTorch finds.
    """
    there = torch.cuda.device_count()
    if accelerator == "cuda" or (accelerator == "gpu" and not torch.backends.mps.is_available()):
        if there == 0:
            raise BoneAgeError(
                f"trainer.accelerator={accelerator}: PyTorch {torch.__version__} finds no GPU here.\n"
                "Leave the option out to train on what is there; or see whether the GPU's driver is there\n"
                "and fits that build of PyTorch (nvidia-smi, python -m torch.utils.collect_env)."
            )
    elif not on_gpu(accelerator):
        return
    if isinstance(devices, int) and devices > there:
        raise BoneAgeError(f"trainer.devices={devices}: PyTorch finds {there} on this machine.")


def resolve_precision(precision: str | int, accelerator: str = "auto", depthwise: bool = False) -> str:
    """Return Lightning's name of a precision; `auto` is bfloat16 where it is native, float32 elsewhere.

    Args:
        precision: as configured.
        accelerator: as configured.
        depthwise: whether the network has depthwise convolutions, which CPUs compute faster in float32.

    Raises:
        BoneAgeError: another precision.
    """
    if (name := normalize_precision(precision)) != AUTO:
        return name
    if on_gpu(accelerator):
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = "bf16" in _cpu_flags() and not depthwise
    return "bf16-mixed" if native else "32-true"


def _cpu_flags() -> str:
    """The processor's flags where Linux lists them (`avx512_bf16`, `amx_bf16`, Arm's `bf16`)."""
    try:
        with Path("/proc/cpuinfo").open() as file:
            return next((line for line in file if line.lower().startswith(("flags", "features"))), "")
    except OSError:
        return ""


def syncs_batchnorm(sync_batchnorm: bool | None, accelerator: str) -> bool:
    """Return whether processes normalize a batch together; if `None`, where PyTorch can: on GPUs.

    Raises:
        BoneAgeError: `sync_batchnorm` is true, without a GPU.
    """
    if sync_batchnorm and not on_gpu(accelerator):
        raise BoneAgeError("trainer.sync_batchnorm=true: PyTorch synchronizes BatchNorm on GPUs only.")
    return on_gpu(accelerator) if sync_batchnorm is None else sync_batchnorm


def default_workers(*, prepared: bool, gpu: bool, processes: int = 1) -> int:
    """Loader processes of one training process: what keeps its device fed without taking cores from it.

    Prepared images need next to nothing: none beside a CPU, whose cores the network's own threads take, and
    four beside a GPU, so that a disk read is waited for while others go on. Decoding the original files takes
    a usable core each beside a GPU, up to sixteen, and one for four cores without. The training `processes`
    of this machine share its cores.
    """
    share = max(cores() // processes, 1)
    if gpu:
        return min(share, 4 if prepared else 16)
    return 0 if prepared else share // 4


def describe_numerics(device: str, processes: int) -> dict[str, Any]:
    """Return what the last bits of a sum depend on: a run that is to come out the same needs the same."""
    return {
        "device": device,
        "processes": processes,
        "threads": torch.get_num_threads(),  # of each process; PyTorch divides sums among them
        "PyTorch": str(torch.__version__),  # which is a class of its own
    }


def warn_if_numerics_differ(before: dict[str, Any] | None, now: dict[str, Any]) -> None:
    """Say what a run that goes on is computed with otherwise than before; of older runs nothing is known."""
    before = before or now
    changed = [key for key in now if before.get(key) != now[key]]
    if changed:
        log.warning(
            "computed with %s; before with %s: the run goes on, but not to the bit as it would have",
            ", ".join(f"{key} {now[key]}" for key in changed),
            ", ".join(f"{key} {before.get(key)}" for key in changed),
        )


def keep_freed_memory() -> None:
    """Make the C library keep what is freed, for a command whose network runs on the CPU.

    glibc hands every large block back to the system and fetches the next one page by page: at 500 pixels
    1,259,236 page faults a step (see benchmarks/RESULTS.md for what they cost). Does nothing elsewhere.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(_M_MMAP_MAX, 0)  # large blocks from the heap too
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)  # and the heap's end is not given back
        libc.mallopt(_M_TOP_PAD, 2**28)  # bytes that the heap grows by


_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # glibc's malloc.h


def disable_tf32() -> None:
    """Compute float32 on a GPU as float32: by PyTorch's default cuDNN rounds to TF32's 10 bits.

    With mixed precision, too: convolutions and matrix products are in bfloat16 then, and what is left in
    float32, as the last layer and the mean of a distribution, is to be exact.
    """
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
