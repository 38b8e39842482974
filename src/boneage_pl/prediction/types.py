"""Predictions, prediction requests and quality flags."""

from dataclasses import dataclass, field
from typing import Any, Literal

from boneage_pl.data.images.radiograph import ImageInput, Radiograph
from boneage_pl.data.images.resize import Pixels, ResizeSpec
from boneage_pl.prediction.growth_reference import skeletal_age_sd

# Quality flags: what is unusual, and what to do about it.
QUALITY_FLAGS = {
    "out_of_distribution": "unlike the training radiographs: do not rely on the prediction",
    "resolution_mismatch": "finer or coarser than the training images: resize it like them, or train on "
    "images like it",
    "rotated": "rotated by 90° or 180°: rotate it upright and predict again",
    "inverted": "bones were dark: the image was inverted before prediction",
    "right_hand": "the file's laterality is right: the image was mirrored",
    "sex_mismatch": "the file has the other sex: the prediction uses the given one",
    "blank_image": "all pixels have the same value",
}


@dataclass
class Prediction:
    """Predicted bone age of one radiograph, for one sex.

    Args:
        path: file path as given; empty for an image in memory.
        male: sex used for the prediction; `None` if unknown, which is an error.
        months: bone age; `None` if there is no prediction.
        lower: lower bound of the prediction interval in months; `None` if the model has no intervals.
        upper: upper bound.
        flags: names from `QUALITY_FLAGS`.
        notes: preprocessing steps and remarks.
        chronological_age: in months, if the file has it.
        std: standard deviation of the predicted distribution in months; `None` if the model has none.
        error: why there is no prediction; empty otherwise.
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
        """`F`, `M`, or empty if unknown."""
        return "" if self.male is None else "M" if self.male else "F"

    @property
    def years_months(self) -> str:
        """Bone age in years and months: `10 y 4 m`."""
        return "" if self.months is None else format_years_months(self.months)

    @property
    def age_difference(self) -> float | None:
        """Bone age minus chronological age in months; `None` if one is unknown."""
        if self.months is None or self.chronological_age is None:
            return None
        return self.months - self.chronological_age

    @property
    def age_difference_sd(self) -> float | None:
        """`age_difference` in standard deviations; `None` where `skeletal_age_sd` has none."""
        if self.age_difference is None or self.chronological_age is None or self.male is None:
            return None
        sd = skeletal_age_sd(self.chronological_age, male=self.male)
        return None if sd is None else self.age_difference / sd

    def to_dict(self) -> dict[str, Any]:
        """Return the columns of `predict`'s table.

        Example:
            >>> row = Prediction("hand.dcm", male=False, months=124.3, chronological_age=108.0).to_dict()
            >>> row["sex"], row["years_months"], round(row["age_difference"], 1)
            ('F', '10 y 4 m', 16.3)
        """
        return {
            "path": self.path,
            "sex": self.sex,
            "months": self.months,
            "years_months": self.years_months,
            "lower": self.lower,
            "upper": self.upper,
            "flags": self.flags,
            "error": self.error,
            "chronological_age": self.chronological_age,
            "age_difference": self.age_difference,
            "age_difference_sd": self.age_difference_sd,
            "notes": self.notes,
            "predicted_std": self.std,
        }


def format_years_months(months: float) -> str:
    """Format months as years and months: 124.3 → `10 y 4 m`."""
    sign, whole = "-" if months < -0.5 else "", abs(round(months))
    return f"{sign}{whole // 12} y {whole % 12} m"


@dataclass
class PredictionRequest:
    """A radiograph to predict.

    Args:
        image: a path, or an image in memory (see `load_radiograph`).
        male: the child's sex; `None` to read it from the file; `unknown` to predict both.
        error: why it cannot be predicted; empty otherwise.
    """

    image: ImageInput
    male: bool | Literal["unknown"] | None = None
    error: str = ""

    @property
    def path(self) -> str:
        """File path as given; empty for an image in memory."""
        return str(self.image) if isinstance(self.image, str) or hasattr(self.image, "__fspath__") else ""


@dataclass
class PredictionResult:
    """A prediction and its image.

    Args:
        request: the prediction request.
        prediction: for one sex.
        pixels: network input by preprocessing, uint8 [side, side]; empty without an image.
        radiograph: the decoded image; `None` if it is unreadable.
    """

    request: PredictionRequest
    prediction: Prediction
    pixels: dict[ResizeSpec, Pixels]
    radiograph: Radiograph | None = None
