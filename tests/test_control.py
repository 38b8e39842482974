"""The age of a phantom can be read from its bones, and from nothing else in the picture."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Result

# The demo's v1 at half its length.
OPTIONS = ["data=phantom_small", "optimizer.lr=0.001", "trainer.max_epochs=5"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("skeleton_age", "lowest", "highest"),
    [("null", 0.0, 0.5), ("120", 0.97, 100.0)],
    ids=["bones of the label's age", "every skeleton at 120 months"],
)
def test_a_frozen_skeleton_leaves_nothing_to_learn(
    command: Callable[..., Result],
    tmp_path: Path,
    skeleton_age: str,
    lowest: float,
    highest: float,
):
    """The best epoch, picked on the validation set, may fall a little below the constant by chance."""
    command("+experiment=v1", *OPTIONS, f"data.generate.skeleton_age={skeleton_age}", cwd=tmp_path)
    (summary,) = tmp_path.glob("outputs/v1/*/report/summary.json")
    numbers = json.loads(summary.read_text())
    share = numbers["best_val_mae"] / numbers["constant_mae"]
    assert lowest <= share <= highest
