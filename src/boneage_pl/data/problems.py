"""What is wrong with a data set, collected in one pass and told together."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from boneage_pl.errors import BoneAgeError


def format_list(names: Iterable[object], most: int | None = 10) -> str:
    """List names up to `most` of them, and say how many there are if that is not all."""
    listed = [str(name) for name in names]
    return ", ".join(listed[:most]) + (f" … ({len(listed)} in all)" if listed[most or len(listed) :] else "")


@dataclass(frozen=True)
class Issue:
    """One row or image that cannot be used."""

    id: str
    reason: str  # "row with an empty bone age": what it is counted under
    where: str  # "line 4 (1378,old,True)", or a file's path


OnInvalid = Literal["error", "skip"]


def check_on_invalid(on_bad_image: str) -> OnInvalid:
    """Raise `BoneAgeError` for a `data.on_bad_image` that is none."""
    if on_bad_image not in ("error", "skip"):
        raise BoneAgeError(f"data.on_bad_image={on_bad_image}: there are two, error and skip.")
    return "skip" if on_bad_image == "skip" else "error"


class DataIssues:
    """Every row and image of one data set that cannot be used."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.found: list[Issue] = []
        self.notes: list[str] = []

    def __len__(self) -> int:
        return len(self.found)

    def add(self, kind: str, places: Iterable[tuple[str, str]]) -> None:
        """Add problems of one kind, each an id and where it was found."""
        self.found += [Issue(i, kind, where) for i, where in places]

    def note(self, words: str) -> None:
        """Keep a word on how the data set was read that a person should see; nothing is kept of nothing."""
        self.notes += [words] if words else []

    def log_notes(self, log: logging.Logger) -> None:
        """Say what was noted since the last time."""
        for words in self.notes:
            log.info("%s", words)
        self.notes.clear()

    def filter(self, ids: set[str]) -> "DataIssues":
        """Return those of some ids."""
        part = DataIssues(self.source)
        part.found = [problem for problem in self.found if problem.id in ids]
        return part

    def summary(self, most: int | None = 10) -> str:
        """Return a line for each kind: how many there are, and the first `most` of them."""
        kinds = dict.fromkeys(problem.reason for problem in self.found)
        places = {kind: [p.where for p in self.found if p.reason == kind] for kind in kinds}
        return "\n".join(
            f"  {len(there)} × {kind}: {format_list(there, most)}" for kind, there in places.items()
        )

    def error(self, most: int | None = 10) -> BoneAgeError:
        """Return the error that says all of it."""
        return BoneAgeError(
            f"{self.source}: {len(self)} rows or images cannot be used.\n{self.summary(most)}\n"
            "Correct them or take their rows out of the table; or leave them out with data.on_bad_image=skip."
        )

    def table(self) -> pd.DataFrame:
        """Return the problems as a table: `id, problem, where`."""
        rows = [(p.id, p.reason, p.where) for p in self.found]
        return pd.DataFrame(rows, columns=["id", "problem", "where"])


def drop_invalid_images(
    problems: DataIssues, table: pd.DataFrame, bad: dict[str, str], contents: dict[str, str]
) -> pd.DataFrame:
    """Add the images of `table` that cannot be used, and return the rows of the others.

    Args:
        table: `id, bone_age, male, path`.
        bad: what an image is instead, by id.
        contents: what tells the others apart, by id: one picture with two ages or sexes has none.
    """
    wrong = table["id"].map(bad)
    for kind in wrong.dropna().unique():
        rows = table[wrong == kind]
        problems.add(f"image that is {kind}", zip(rows["id"], rows["path"], strict=True))
    good = table[wrong.isna()]
    content = good["id"].map(contents)
    labels = good.assign(content=content)[["content", "bone_age", "male"]].drop_duplicates()["content"]
    unequal = content.isin(labels[labels.duplicated()])
    copies = good[unequal].assign(content=content[unequal]).groupby("content", sort=False)
    for _, rows in copies:
        others = format_list(rows["id"], 5)
        problems.add(
            "image that another row has with another age or sex",
            ((i, f"{path} (ids {others})") for i, path in zip(rows["id"], rows["path"], strict=True)),
        )
    return good[~unequal]
