"""Images are decoded ahead, in order, and with a limit."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from boneage_pl.data.images.resize import ResizeSpec
from boneage_pl.prediction.loading import PREFETCH, load_images
from boneage_pl.prediction.types import PredictionRequest


def images(count: int, drawn: list[int]) -> Iterator[PredictionRequest]:
    for number in range(count):
        drawn.append(number)
        image = np.zeros((20, 20), np.uint8)
        image[:10, :] = number % 250 + 1
        yield PredictionRequest(image, False)


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("threads", [0, 1, 3])
def test_order_is_kept_and_memory_bounded(threads: int, overlap: bool):
    drawn: list[int] = []
    requests = images(2000, drawn)
    for at, one in enumerate(load_images(requests, [ResizeSpec(10)], [], threads, overlap=overlap)):
        assert one.pixels[ResizeSpec(10)].max() > 0
        assert one.radiograph.image.getpixel((0, 0)) == at % 250 + 1
        assert len(drawn) <= at + PREFETCH + 1
    assert at == 1999


def test_early_exit_stops_loading():
    drawn: list[int] = []
    coming = load_images(images(100_000, drawn), [ResizeSpec(10)], [], 2)
    next(coming)
    coming.close()
    assert len(drawn) <= PREFETCH + 2


def test_unreadable_image_is_a_result(tmp_path: Path):
    (tmp_path / "a.png").write_text("no")
    requests = [
        PredictionRequest(tmp_path / "a.png"),
        PredictionRequest(tmp_path / "b.png"),
        PredictionRequest("x", error="odd"),
        PredictionRequest(3),
    ]
    found = list(load_images(requests, [ResizeSpec(10)], [], 2))
    assert [one.prediction.error.split(" (")[0] for one in found] == [
        "none of PNG, JPEG, TIFF, WEBP, JPEG2000, BMP",
        "unreadable",
        "odd",
        "cannot be read",
    ]
