"""Pictures are decoded ahead, in order, and never many at once."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from boneage_pl.data.frame import Frame
from boneage_pl.reading.answer import Question
from boneage_pl.reading.squares import AHEAD, squares_of


def pictures(count: int, drawn: list[int]) -> Iterator[Question]:
    for number in range(count):
        drawn.append(number)
        picture = np.zeros((20, 20), np.uint8)
        picture[:10, :] = number % 250 + 1
        yield Question(picture, False)


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("threads", [0, 1, 3])
def test_thousands_are_answered_in_order_and_few_are_held(threads: int, overlap: bool):
    drawn: list[int] = []
    asked = pictures(2000, drawn)
    for at, one in enumerate(squares_of(asked, [Frame(10)], [], threads, overlap=overlap)):
        assert one.pixels[Frame(10)].max() > 0
        assert one.radiograph.image.getpixel((0, 0)) == at % 250 + 1
        assert len(drawn) <= at + AHEAD + 1
    assert at == 1999


def test_leaving_early_waits_for_no_more():
    drawn: list[int] = []
    coming = squares_of(pictures(100_000, drawn), [Frame(10)], [], 2)
    next(coming)
    coming.close()
    assert len(drawn) <= AHEAD + 2


def test_what_cannot_be_read_is_an_answer_too(tmp_path: Path):
    (tmp_path / "a.png").write_text("no")
    asked = [
        Question(tmp_path / "a.png"),
        Question(tmp_path / "b.png"),
        Question("x", error="odd"),
        Question(3),
    ]
    found = list(squares_of(asked, [Frame(10)], [], 2))
    assert [one.error.split(" (")[0] for one in found] == [
        "no PNG or JPEG or TIFF",
        "unreadable",
        "odd",
        "cannot be read",
    ]
