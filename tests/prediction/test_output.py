"""Predictions as text and CSV."""

import doctest
import errno
import io
import os
from pathlib import Path

import pytest

from boneage_pl.errors import BoneAgeError
from boneage_pl.prediction import types
from boneage_pl.prediction.output import (
    COLUMNS,
    PredictionWriter,
    format_prediction,
    open_writer,
    prediction_cells,
)
from boneage_pl.prediction.types import QUALITY_FLAGS, Prediction, format_years_months


@pytest.mark.parametrize(
    ("months", "text"),
    [(0, "0 y 0 m"), (124.3, "10 y 4 m"), (11.6, "1 y 0 m"), (228, "19 y 0 m"), (-3.2, "-0 y 3 m")],
)
def test_years_and_months(months: float, text: str):
    assert format_years_months(months) == text


def test_console_line_has_interval_and_flags():
    prediction = Prediction("a.dcm", True, 124.3, 100.2, 148.4, ["right_hand"], ["mirrored"], 130.0)
    assert format_prediction(prediction, 0.9) == (
        "a.dcm (M): 10 y 4 m (124.3 months), 90 % between 100 and 148; "
        "130 months old, -6 (-0.6 SD)  [right_hand]"
    )
    assert format_prediction(Prediction("b.png", error="cut short"), 0.9) == "b.png: no prediction: cut short"


def test_docstring_example_runs():
    assert doctest.testmod(types) == (0, 2)


def test_csv_row_has_every_column():
    prediction = Prediction(
        "a,b.png", False, 124.3, 100.2, 148.4, ["right_hand", "resolution_mismatch"], ["x"], 130.0
    )
    row = dict(zip(COLUMNS, prediction_cells(prediction), strict=True))
    assert (row["path"], row["sex"], row["months"]) == ("a,b.png", "F", "124.300")
    assert (row["flags"], row["lower"], row["chronological_age"]) == (
        "right_hand;resolution_mismatch",
        "100.200",
        "130.000",
    )


def test_name_that_is_no_text_is_escaped(tmp_path: Path):
    with open_writer(tmp_path / "out.csv") as output:
        output.write(Prediction(os.fsdecode(b"M\xfcller.png"), False, 10.0))
        output.write(Prediction("z.png", False, 10.0))
    rows = (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()
    assert [row.split(",")[0] for row in rows] == ["path", r"M\udcfcller.png", "z.png"]


def test_flags_are_explained_once(capsys: pytest.CaptureFixture[str]):
    table = io.StringIO()
    output = PredictionWriter(table, None)
    predictions = [Prediction(f"{n}.png", False, 10.0, flags=["out_of_distribution"]) for n in range(20)]
    for prediction in output.summary([*predictions, Prediction("z.png", error="damaged")]):
        output.write(prediction)
    stderr = capsys.readouterr().err
    assert stderr.count(QUALITY_FLAGS["out_of_distribution"]) == 1
    assert "out_of_distribution (20)" in stderr
    assert "20 predicted, 1 failed" in stderr
    assert len(table.getvalue().splitlines()) == 22


def test_full_disk_is_reported_and_nothing_overwritten(tmp_path: Path):
    def fill() -> None:
        with open_writer(tmp_path / "out.csv") as output:
            output.write(Prediction("a.png", False, 10.0))
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(BoneAgeError, match="No space left on device; the rows written so far are kept"):
        fill()
    kept = (tmp_path / "out.csv").read_text()
    assert "a.png" in kept
    with pytest.raises(BoneAgeError, match="exists already"):
        fill()
    assert (tmp_path / "out.csv").read_text() == kept


def test_empty_output_file_is_removed(tmp_path: Path):
    def fail() -> None:
        with open_writer(tmp_path / "deep" / "out.csv"):
            raise BoneAgeError("the checkpoint cannot be read")

    with pytest.raises(BoneAgeError, match="checkpoint"):
        fail()
    assert not (tmp_path / "deep" / "out.csv").exists()
