import logging
from pathlib import Path
from typing import Any, cast

import pytest

from boneage_pl.run.callbacks import EpochLog
from boneage_pl.run.history import History


def test_a_collapse_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    epochs = EpochLog(tmp_path / "metrics.csv", History([]), cast(Any, None))
    with caplog.at_level(logging.WARNING):
        for epoch, apart in enumerate((30.0, float("nan"), 0.0, 0.01)):
            epochs._say_collapse(epoch, apart)
    (said,) = caplog.messages
    assert said.startswith("epoch 2 answers the same for every validation image (within 0.00 months)")
