"""Metadata in a checkpoint: configuration, split, validation predictions."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, ConfigDict, Field, GetPydanticSchema, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from boneage_pl.data.images.resize import ResizeSpec
from boneage_pl.model.input_spec import InputSpec
from boneage_pl.training.history import EpochMetrics

_Whole = Annotated[int, Field(strict=True, ge=0)]
_Positive = Annotated[int, Field(strict=True, gt=0)]
_Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Numbers = Sequence[bool | int | float]  # including NaN and infinity
_Names = Annotated[list[str], Field(min_length=1)]


class _Stored(TypedDict):
    """A table with some keys checked and others allowed."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]


class _Model(_Stored):
    _target_: str


class _Data(_Stored):
    root: str
    image_size: _Positive


class _Trainer(_Stored):
    max_epochs: _Positive


class _Config(_Stored):
    seed: _Whole
    model: _Model
    data: _Data
    optimizer: dict[str, Any]
    trainer: _Trainer


class _Epoch(_Stored):
    epoch: _Whole
    train_mae: float
    val_mae: float | None
    lr: float


class _Medians(_Stored):
    all: float
    girls: float
    boys: float


class _Population(_Stored):
    counts: list[_Whole]
    medians: _Medians


class _Inherited(_Stored):
    ids: list[str]
    sha256: list[str]


class _Validation(_Stored):
    id: list[str]
    male: _Numbers
    bone_age: _Numbers
    predicted: _Numbers


class _Split(_Stored):
    protocol: str
    age_bins: _Positive
    samples_per_group: _Positive
    val_fraction: _Finite
    seed: _Whole
    edges: list[_Finite]
    train: _Names
    validation: _Names
    file_sha256: dict[str, str]
    pixel_sha256: dict[str, str]
    draws: NotRequired[list[Sequence[_Whole]]]
    inherited_training_images: _Inherited
    population: _Population


def _check_input(spec: InputSpec) -> InputSpec:
    finite = all(map(isfinite, (*spec.mean, *spec.std)))
    if not finite or not 0 < len(spec.mean) == len(spec.std) or min(spec.std) <= 0:
        raise ValueError("mean and standard deviation above 0 are needed for each channel")
    return spec


def _check_lengths(columns: _Validation) -> _Validation:
    if len({len(values) for values in columns.values()}) != 1:  # type: ignore[arg-type]
        raise ValueError("columns have different lengths")
    return columns


def _check_epochs(rows: list[_Epoch]) -> list[_Epoch]:
    if [row["epoch"] for row in rows] != list(range(len(rows))):
        raise ValueError("rows are not in the order of epochs")
    return rows


def _check_split(split: _Split) -> _Split:
    edges, bins = split["edges"], split["age_bins"]
    if len(edges) != bins + 1 or sorted(edges) != edges:
        raise ValueError(f"edges must be {bins + 1} ascending numbers")
    hashes, train, validation = split["file_sha256"], set(split["train"]), set(split["validation"])
    for key in ("file_sha256", "pixel_sha256"):
        if unknown := (train | validation) - set(split[key]):  # type: ignore[literal-required]
            raise ValueError(f"{key} lacks {len(unknown)} images")
    is_disjoint = {hashes[i] for i in train}.isdisjoint(hashes[i] for i in validation)
    if split["protocol"] in ("disjoint", "natural") and not is_disjoint:
        raise ValueError(f"protocol {split['protocol']}, but training and validation share images")
    if len(split["population"]["counts"]) != 2 * bins:
        raise ValueError("population.counts must have one number per group")
    return split


def _stored_as(schema: Any) -> GetPydanticSchema:
    """Validate a dictionary by a schema while keeping its type annotation simple."""
    return GetPydanticSchema(lambda _, handler: handler(schema))


@dataclass
class WarmStart:
    """A run's warm start, with its MAE in months on this run's validation rows."""

    experiment: str
    ckpt: str
    val_mae: float


@dataclass
class CheckpointMetadata:
    """Metadata that makes a checkpoint self-contained.

    Args:
        version: of boneage_pl.
        experiment: the experiment's name.
        config: resolved configuration of the run.
        precision: Lightning's name of the training precision.
        input: the network's normalization.
        split: see `split_to_dict`.
        epoch: the epoch that has ended; 0 also before the first.
        validation: the latest validation's rows and predictions: `id, male, bone_age, predicted`, and
            `predicted_std` if the loss has one.
        epochs: the epochs so far.
        start: the warm start; `None` without `ckpt=`.
        numerics: hardware that affects rounding, see `utils.hardware`.
        root: `data.root` as an absolute path.
        bit_depths: bit depths of 16-bit images, see `boneage_pl.data.images.bit_depth`.
    """

    version: str
    experiment: str
    config: Annotated[dict[str, Any], _stored_as(_Config)]
    precision: str
    input: Annotated[InputSpec, AfterValidator(_check_input)]
    split: Annotated[dict[str, Any], _stored_as(Annotated[_Split, AfterValidator(_check_split)])]
    epoch: _Whole
    validation: Annotated[
        dict[str, list[Any]], _stored_as(Annotated[_Validation, AfterValidator(_check_lengths)])
    ]
    epochs: Annotated[
        list[EpochMetrics], _stored_as(Annotated[list[_Epoch], AfterValidator(_check_epochs)])
    ] = field(default_factory=list)
    start: WarmStart | None = None
    numerics: dict[str, Any] = field(default_factory=dict)
    root: str = ""
    bit_depths: list[_Positive] = field(default_factory=list)

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self.resize_spec.size

    @property
    def resize_spec(self) -> ResizeSpec:
        """Size and resize mode of the images."""
        return ResizeSpec.from_config(self.config["data"])

    @property
    def synthetic(self) -> bool:
        """Whether the radiographs are synthetic."""
        return bool(self.config["data"].get("phantom"))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> "CheckpointMetadata":
        """Validate plain values.

        Raises:
            ValueError: with the first missing or invalid field.
        """
        try:
            metadata = _ADAPTER.validate_python(values)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "metadata"
            raise ValueError(f"{where}: {first['msg']}") from error
        if not set(metadata.validation["id"]) <= set(metadata.split["validation"]):
            raise ValueError("validation.id: images that are not validation images of the split")
        return metadata


_ADAPTER = TypeAdapter(CheckpointMetadata)
