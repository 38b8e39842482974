"""The best epoch."""

import math

import pytest

from boneage_pl.training.history import MetricsHistory

NAN, INF = math.nan, math.inf


def history(*maes: float | None) -> MetricsHistory:
    return MetricsHistory(
        {"epoch": n, "train_mae": 1.0, "val_mae": mae, "lr": 0.1} for n, mae in enumerate(maes)
    )


@pytest.mark.parametrize(
    ("maes", "best"),
    [
        ([3.0, 2.0, 2.0], 1),
        ([NAN, 40.0, 50.0], 1),
        ([NAN, NAN], 0),
        ([NAN, INF], 1),
        ([INF, NAN, 9.0], 2),
        ([None, 9.0, None], 1),
        ([None, None], None),
        ([], None),
    ],
)
def test_best_is_lowest(maes: list[float | None], best: int | None):
    found = history(*maes)
    assert (found.best and found.best["epoch"]) == best
    assert found.ends_with_best == (best is not None and best == len(maes) - 1)


def test_lost_epoch_is_not_best():
    found = history(9.0, 3.0, 4.0)
    found.rows[1]["lost"] = True
    assert found.best is found.rows[2]
    assert "lost" not in found.to_csv()


def test_csv_marks_unvalidated_epochs():
    text = history(9.0, None).to_csv()
    assert text == "epoch,train_mae,val_mae,lr\n0,1.0,9.0,0.1\n1,1.0,,0.1\n"
    assert MetricsHistory.from_csv(text).rows == history(9.0, None).rows
