from pathlib import Path

import pytest
import torch

from boneage_pl.errors import BoneAgeError
from boneage_pl.train import _translate_errors


@pytest.mark.parametrize(
    ("error", "option"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
            "accumulate_grad_batches=2",
        ),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "data.batch_size"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "data.num_workers"),
    ],
)
def test_lack_of_memory_names_options(error: RuntimeError, option: str):
    with pytest.raises(BoneAgeError, match=option), _translate_errors(Path("run")):
        raise error


def test_other_runtime_error_stays():
    with pytest.raises(RuntimeError, match="unforeseen"), _translate_errors(Path("run")):
        raise RuntimeError("unforeseen")
