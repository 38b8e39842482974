"""Published results of others, and the reference test sets that they are measured on.

The two sets differ by about two months. The challenge's test set is 200 radiographs whose ages are the mean
of six readings, which averages out part of a single reader's error; 200 images leave about half a month of
uncertainty. The challenge's validation set is 1,425 radiographs with the age of one clinical report, as in
its training set. Images are identified by their number and ids: the challenge numbered its three sets in one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from boneage_pl.training.published import BEST_PUBLISHED, PUBLISHED_ON_TEST

PublishedResult = tuple[str, float, str]  # whose, MAE in months, source


@dataclass(frozen=True)
class ReferenceTestSet:
    """One test of the literature.

    Args:
        name, images, ages: what it is: how many radiographs, and where their ages come from.
        figures: what was reached on it.
        first, last: its ids lie between these.
    """

    name: str
    images: int
    ages: str
    figures: tuple[PublishedResult, ...]
    first: int
    last: int


TEST = ReferenceTestSet(
    name="RSNA 2017 test set",
    images=200,
    ages="the mean of six readings",
    figures=(
        ("winner of the challenge", 4.265, "Halabi et al., Radiology 2019"),
        ("ensemble of the challenge's models", 3.79, "Pan et al., Radiology: Artificial Intelligence 2019"),
        ("Deeplasia, an ensemble", 3.87, "Rassmann et al., Pediatric Radiology 2023"),
        (
            "the published v2, 5.5949 on its own validation rows",
            PUBLISHED_ON_TEST[0],
            "computed from the predictions that its notebook prints",
        ),
    ),
    first=4360,
    last=4559,
)
VALIDATION = ReferenceTestSet(
    name="RSNA 2017 validation set",
    images=1425,
    ages="one clinical report each",
    figures=(
        (
            "the winner's model, as published later",
            6.8,
            "Santomartino et al., Radiology: Artificial Intelligence 2024",
        ),
    ),
    first=1386,
    last=15611,
)
REPRODUCED: PublishedResult = (
    "the published v2, on its own validation rows: about half show images that it was trained on",
    BEST_PUBLISHED,
    "the published description",
)


def identify_test_set(ids: set[str], trained: Callable[[str], bool]) -> ReferenceTestSet | None:
    """Return the yardstick that these images are, or nearly all of it; `None` for others.

    Args:
        ids: of the images that are asked.
        trained: whether an id is in the checkpoint's split: the validation set's are in no training table.
    """
    numbers = pd.to_numeric(pd.Series(sorted(ids)), errors="coerce")
    for yardstick in (TEST, VALIDATION):
        most = 0.9 * yardstick.images <= len(ids) <= yardstick.images  # a few may be unreadable
        if most and numbers.between(yardstick.first, yardstick.last).all() and not any(map(trained, ids)):
            return yardstick
    return None
