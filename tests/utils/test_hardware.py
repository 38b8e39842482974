import pytest
import torch

from boneage_pl.errors import BoneAgeError
from boneage_pl.utils import hardware


@pytest.mark.parametrize(
    ("flags", "expected"), [("flags: sse avx512_bf16", "bf16-mixed"), ("flags: sse avx2", "32-true")]
)
def test_precision_is_bfloat16_only_if_native(monkeypatch: pytest.MonkeyPatch, flags: str, expected: str):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(hardware, "_cpu_flags", lambda: flags)
    assert hardware.resolve_precision("auto") == expected
    assert hardware.resolve_precision(32) == "32-true"  # as Hydra reads trainer.precision=32


@pytest.mark.parametrize(
    ("gpu", "option", "expected"),
    [
        (True, None, True),
        (True, False, False),
        (True, True, True),
        (False, None, False),
        (False, False, False),
    ],
)
def test_batchnorm_syncs_where_possible(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, option: bool | None, expected: bool
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert hardware.syncs_batchnorm(option, "auto") is expected
    assert not hardware.syncs_batchnorm(None, "cpu")
    with pytest.raises(BoneAgeError, match="on GPUs only"):
        hardware.syncs_batchnorm(True, "cpu")
