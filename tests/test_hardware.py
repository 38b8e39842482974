import pytest
import torch

from boneage_pl import hardware


@pytest.mark.parametrize(
    ("flags", "expected"), [("flags: sse avx512_bf16", "bf16-mixed"), ("flags: sse avx2", "32-true")]
)
def test_precision_is_bfloat16_only_where_it_is_native(
    monkeypatch: pytest.MonkeyPatch, flags: str, expected: str
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(hardware, "_cpu_flags", lambda: flags)
    assert hardware.resolve_precision("auto") == expected
    assert hardware.resolve_precision(32) == "32"  # as Hydra reads trainer.precision=32
