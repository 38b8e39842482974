import logging
from pathlib import Path
from typing import Any, cast

import pytest

from boneage_pl.training.callbacks.logging import EpochLogger
from boneage_pl.training.history import MetricsHistory


def test_constant_predictions_are_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    epochs = EpochLogger(tmp_path / "metrics.csv", MetricsHistory([]), cast(Any, None))
    with caplog.at_level(logging.WARNING):
        for epoch, apart in enumerate((30.0, float("nan"), 0.0, 0.01)):
            epochs._warn_if_constant_predictions(epoch, apart)
    (message,) = caplog.messages
    assert message.startswith(
        "epoch 2: predictions are nearly constant over the validation images (range 0.00 months)"
    )
