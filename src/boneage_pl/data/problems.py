"""What is wrong with a data set, collected in one pass and told together."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from boneage_pl.errors import BoneageError


def first_ten(names: Iterable[object], most: int | None = 10) -> str:
    """List names up to `most` of them, and say how many there are if that is not all."""
    listed = [str(name) for name in names]
    return ", ".join(listed[:most]) + (f" … ({len(listed)} in all)" if listed[most or len(listed) :] else "")


@dataclass(frozen=True)
class Problem:
    """One row or image that cannot be used."""

    id: str
    kind: str  # "row with an empty bone age": what it is counted under
    where: str  # "line 4 (1378,old,True)", or a file's path


OnBadImage = Literal["error", "skip"]


def check_choice(on_bad_image: str) -> OnBadImage:
    """Raise `BoneageError` for a `data.on_bad_image` that is none."""
    if on_bad_image not in ("error", "skip"):
        raise BoneageError(f"data.on_bad_image={on_bad_image}: there are two, error and skip.")
    return "skip" if on_bad_image == "skip" else "error"


class Problems:
    """Every row and image of one data set that cannot be used."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.found: list[Problem] = []

    def __len__(self) -> int:
        return len(self.found)

    def add(self, kind: str, places: Iterable[tuple[str, str]]) -> None:
        """Add problems of one kind, each an id and where it was found."""
        self.found += [Problem(i, kind, where) for i, where in places]

    def among(self, ids: set[str]) -> "Problems":
        """Return those of some ids."""
        part = Problems(self.source)
        part.found = [problem for problem in self.found if problem.id in ids]
        return part

    def told(self, most: int | None = 10) -> str:
        """Return a line for each kind: how many there are, and the first `most` of them."""
        kinds = dict.fromkeys(problem.kind for problem in self.found)
        places = {kind: [p.where for p in self.found if p.kind == kind] for kind in kinds}
        return "\n".join(
            f"  {len(there)} × {kind}: {first_ten(there, most)}" for kind, there in places.items()
        )

    def error(self, most: int | None = 10) -> BoneageError:
        """Return the error that says all of it."""
        return BoneageError(
            f"{self.source}: {len(self)} rows or images cannot be used.\n{self.told(most)}\n"
            "Correct them or take their rows out of the table; or leave them out with data.on_bad_image=skip."
        )

    def table(self) -> pd.DataFrame:
        """Return the problems as a table: `id, problem, where`."""
        rows = [(p.id, p.kind, p.where) for p in self.found]
        return pd.DataFrame(rows, columns=["id", "problem", "where"])


def add_bad_images(problems: Problems, table: pd.DataFrame, bad: dict[str, str]) -> None:
    """Add the images of `table` (`id`, `path`) that are `bad`: what each is instead, by id."""
    for kind in dict.fromkeys(bad.values()):
        places = zip(table["id"], table["path"], strict=True)
        problems.add(f"image that is {kind}", ((i, path) for i, path in places if bad.get(i) == kind))
