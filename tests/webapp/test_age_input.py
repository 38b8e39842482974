"""Parsing of typed ages and dates."""

import pytest

from boneage_pl.errors import BoneAgeError
from boneage_pl.webapp.age_input import parse_age


@pytest.mark.parametrize(
    ("text", "months"),
    [
        ("9 y 2 m", 110),
        ("9y2m", 110),
        ("9 years, 2 months", 110),
        (" 9.5 Y ", 114),
        ("9,5 y", 114),
        ("110 m", 110),
        ("0 m", 0),
        ("", None),
    ],
)
def test_age_is_parsed(text: str, months: float | None):
    assert parse_age(text, "", "") == months


def test_dates_give_age():
    assert parse_age("", "2014-05-30", "2024-05-30") == pytest.approx(120, abs=0.05)
    assert parse_age("10 y", "2014-05-30", "2024-05-30") == pytest.approx(120, abs=0.05)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (("9", "", ""), "Write 9 y 2 m"),  # years or months?
        (("nine", "", ""), "Write 9 y 2 m"),
        (("9 m 2 y", "", ""), "Write 9 y 2 m"),
        (("-1 y", "", ""), "Write 9 y 2 m"),
        (("999 y", "", ""), "more than 130 years"),
        (("", "2014-05-30", ""), "Enter both dates"),
        (("", "30.5.2014", "2024-05-30"), "Write it as 2014-05-30"),
        (("", "2024-05-30", "2014-05-30"), "do not give an age"),
        (("9 y", "2014-05-30", "2024-05-30"), "leave one of them empty"),
    ],
)
def test_invalid_age_is_refused(cells: tuple[str, str, str], expected: str):
    with pytest.raises(BoneAgeError, match=expected):
        parse_age(*cells)
