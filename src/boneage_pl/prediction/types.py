"""Predictions, prediction requests and quality flags."""

from dataclasses import dataclass, field
from typing import Any, Literal

# What a flag means, and what to do about it.
QUALITY_FLAGS = {
    "unfamiliar": "does not look like the radiographs that the model learned from: do not rely on the answer",
    "sharpness": "finer or coarser than the pictures that the model learned from: bring it to their size, in "
    "the way that they were, or train on pictures such as this one",
    "inverted": "bones were dark: the picture was inverted, and the answer is of what came out",
    "right_hand": "the file says that it is a right hand: it was mirrored",
    "blank": "all of it is one gray value",
}


@dataclass
class Prediction:
    """What a model says of one radiograph, for one sex.

    Args:
        path: of the file, as it was named; of a picture in memory nothing.
        male: the sex that it was answered for; `None` where none is known, which is an error.
        months: the bone age; `None` where there is no answer.
        lower: the interval's lower end in months; `None` where the model cannot tell.
        upper: its upper end.
        flags: names from `QUALITY_FLAGS`: what makes the answer doubtful.
        notes: what was done to the picture, or is known of it, in words.
        chronological_age: chronological, in months, where the file says so.
        std: how unsure the model itself is, in months, see `Said`; `None` where it gives a number alone.
        error: why there is no answer; else nothing.
    """

    path: str
    male: bool | None = None
    months: float | None = None
    lower: float | None = None
    upper: float | None = None
    flags: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    chronological_age: float | None = None
    std: float | None = None
    error: str = ""

    @property
    def sex(self) -> str:
        """`F`, `M`, or nothing where it is not known."""
        return "" if self.male is None else "M" if self.male else "F"

    @property
    def years_months(self) -> str:
        """The bone age as people say it: `10 y 4 m`."""
        return "" if self.months is None else format_years_months(self.months)


def format_years_months(months: float) -> str:
    """Return months as years and months: 124.3 → `10 y 4 m`."""
    sign, whole = "-" if months < -0.5 else "", abs(round(months))
    return f"{sign}{whole // 12} y {whole % 12} m"


@dataclass
class PredictionRequest:
    """One radiograph to be answered about.

    Args:
        image: a path, or a picture in memory (see `open_radiograph`).
        male: the child's sex; `None` where the file may say; or `unknown`, to be answered for both.
        error: why it cannot be asked about; else nothing.
    """

    image: Any
    male: bool | Literal["unknown"] | None = None
    error: str = ""

    @property
    def path(self) -> str:
        """The file's path as it was named; of a picture in memory nothing."""
        return str(self.image) if isinstance(self.image, str) or hasattr(self.image, "__fspath__") else ""
