"""The age of a phantom can be read from its bones, from nothing else in the image, and not at any rate."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Result

# The demo's v1.
OPTIONS = ["data=phantom_small", "optimizer.lr=0.001", "trainer.max_epochs=5"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("skeleton_age", "lowest", "highest"),
    [("null", 0.0, 0.5), ("120", 0.97, 100.0)],
    ids=["bones of the label's age", "every skeleton at 120 months"],
)
def test_frozen_skeleton_is_not_learned(
    command: Callable[..., Result],
    tmp_path: Path,
    skeleton_age: str,
    lowest: float,
    highest: float,
):
    """The best epoch, picked on the validation set, may fall a little below the constant by chance."""
    command("+experiment=v1", *OPTIONS, f"data.phantom.skeleton_age={skeleton_age}", cwd=tmp_path)
    (summary,) = tmp_path.glob("outputs/v1/*/report/summary.json")
    numbers = json.loads(summary.read_text())
    share = numbers["best_val_mae"] / numbers["constant_mae"]
    assert lowest <= share <= highest


@pytest.mark.slow
def test_failure_rate_does_not_learn(command: Callable[..., Result], tmp_path: Path):
    """In as many epochs as bring v1, above, below half the constant predictor's error.

    That v1 has a hundredth of this rate: its own, a tenth, takes more epochs to learn than a test has.
    """
    failure = [option for option in OPTIONS if not option.startswith("optimizer")]
    result = command("+experiment=lr_0.1_failure", *failure, cwd=tmp_path, timeout=1800)
    assert "verdict: did not learn" in result.stdout
