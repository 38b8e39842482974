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
    """Whether Lightning's `accelerator` selects an NVIDIA or AMD GPU on this machine."""
    return torch.cuda.is_available() and accelerator != "cpu"


def free_memory(device: torch.device) -> int:
    """Return the free memory of a GPU in bytes."""
    return int(torch.cuda.mem_get_info(device)[0])


def check_devices(accelerator: str, devices: Any) -> None:
    """Raise if configured GPUs are missing.

    Args:
        accelerator, devices: of Lightning's Trainer.

    Raises:
        BoneAgeError: with the number of available GPUs.
    """
    count = torch.cuda.device_count()
    if accelerator == "cuda" or (accelerator == "gpu" and not torch.backends.mps.is_available()):
        if count == 0:
            raise BoneAgeError(
                f"trainer.accelerator={accelerator}: PyTorch {torch.__version__} finds no GPU.\n"
                "Leave the option out, or check that the driver is installed and fits PyTorch's build\n"
                "(nvidia-smi, python -m torch.utils.collect_env)."
            )
    elif not on_gpu(accelerator):
        return
    if isinstance(devices, int) and devices > count:
        raise BoneAgeError(f"trainer.devices={devices}: only {count} available.")


def resolve_precision(precision: str | int, accelerator: str = "auto") -> str:
    """Return Lightning's name of a precision; `auto` is bfloat16 if native, else float32.

    Args:
        precision: as configured.
        accelerator: as configured.

    Raises:
        BoneAgeError: unknown precision.
    """
    if (name := normalize_precision(precision)) != AUTO:
        return name
    if on_gpu(accelerator):
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = "bf16" in _cpu_flags()
    return "bf16-mixed" if native else "32-true"


def _cpu_flags() -> str:
    """Return the processor's flags on Linux (`avx512_bf16`, `amx_bf16`, Arm's `bf16`)."""
    try:
        with Path("/proc/cpuinfo").open() as file:
            return next((line for line in file if line.lower().startswith(("flags", "features"))), "")
    except OSError:
        return ""


def syncs_batchnorm(sync_batchnorm: bool | None, accelerator: str) -> bool:
    """Return whether to synchronize BatchNorm between processes; `None` means on GPUs.

    Raises:
        BoneAgeError: `sync_batchnorm` is true without a GPU.
    """
    if sync_batchnorm and not on_gpu(accelerator):
        raise BoneAgeError("trainer.sync_batchnorm=true: PyTorch synchronizes BatchNorm on GPUs only.")
    return on_gpu(accelerator) if sync_batchnorm is None else sync_batchnorm


def default_workers(*, prepared: bool, gpu: bool, processes: int = 1) -> int:
    """Return the number of loader workers per training process.

    Cached images need little work: no workers with a CPU, whose cores the network uses, and four with a GPU,
    to overlap disk reads. Decoding original files takes a worker per core with a GPU, up to sixteen, and one
    per four cores without. The training `processes` of this machine share its cores.
    """
    share = max(cores() // processes, 1)
    if gpu:
        return min(share, 4 if prepared else 16)
    return 0 if prepared else share // 4


def describe_numerics(device: str, processes: int) -> dict[str, Any]:
    """Return the hardware properties that bit-identical results depend on."""
    return {
        "device": device,
        "processes": processes,
        "threads": torch.get_num_threads(),  # per process; affects the order of sums
        "PyTorch": str(torch.__version__),  # a str subclass
    }


def warn_if_numerics_differ(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Warn if the hardware of a resumed run has changed."""
    changed = [key for key in now if before.get(key) != now[key]]
    if changed:
        log.warning(
            "resuming with %s (previously %s): not bit-identical to an uninterrupted run",
            ", ".join(f"{key} {now[key]}" for key in changed),
            ", ".join(f"{key} {before.get(key)}" for key in changed),
        )


def keep_freed_memory() -> None:
    """Make glibc reuse freed memory, for networks on the CPU.

    By default glibc returns every large block to the system and faults the next one in page by page: at 500
    pixels 1,259,236 page faults per step (their cost is in benchmarks/RESULTS.md). No effect elsewhere.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(_M_MMAP_MAX, 0)  # allocate large blocks on the heap
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)  # never shrink the heap
        libc.mallopt(_M_TOP_PAD, 2**28)  # heap growth in bytes


_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # glibc's malloc.h


def disable_tf32() -> None:
    """Disable TF32, to which cuDNN rounds float32 by default.

    Also with mixed precision, where what remains in float32, such as the last layer, should be exact.
    """
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
