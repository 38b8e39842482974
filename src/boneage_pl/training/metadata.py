"""Metadata in a checkpoint: configuration, split, validation predictions."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, NotRequired

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeInt,
    PositiveInt,
    TypeAdapter,
    ValidationError,
)
from typing_extensions import TypedDict

from boneage_pl.data.images.resize import ResizeSpec
from boneage_pl.data.split import BALANCED
from boneage_pl.model.input_spec import InputSpec
from boneage_pl.training.history import EpochMetrics


@dataclass
class WarmStart:
    """What a run started from, and its MAE in months on this run's validation rows."""

    experiment: str
    ckpt: str
    val_mae: float


@dataclass
class CheckpointMetadata:
    """A checkpoint's record: with the weights, all that is needed to use it alone.

    Args:
        version: of this project.
        experiment: the experiment's name.
        config: the run's whole configuration, resolved.
        precision: Lightning's name of the arithmetic it was trained in.
        input: what the network wants to see.
        split: the split, see `split_to_dict`.
        start: what the run started from; `None` for random weights.
        numerics: what the last bits of a sum depend on, see `utils.hardware`.
        epoch: the epoch that the checkpoint is the end of; 0 also before the first.
        epochs: the epochs so far; `None` in those from before it was recorded.
        validation: the latest validation's rows and answers, `id, male, bone_age, predicted`, and `spread`
            where the loss knows one.
        root: what `data.root` named, as an absolute path.
        bit_depths: bits that 16-bit images were read as, see `boneage_pl.data.images.bit_depth`; none in
            older ones.
    """

    version: str
    experiment: str
    config: dict[str, Any]
    precision: str
    input: InputSpec
    split: dict[str, Any]
    start: WarmStart | None = None
    numerics: dict[str, Any] = field(default_factory=dict)
    epoch: int = 0
    epochs: list[EpochMetrics] | None = None
    validation: dict[str, list[Any]] = field(default_factory=dict)
    root: str = ""
    bit_depths: list[int] = field(default_factory=list)

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self.resize_spec.size

    @property
    def resize_spec(self) -> ResizeSpec:
        """The square that the images were brought into."""
        return ResizeSpec.from_config(self.config["data"])

    @property
    def balanced(self) -> bool:
        """Whether its validation rows come alike from every group by sex and age."""
        return self.split["protocol"] in BALANCED

    @property
    def synthetic(self) -> bool:
        """Whether its radiographs were drawn."""
        return bool(self.config["data"].get("phantom"))

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> "CheckpointMetadata":
        """Read plain values.

        Raises:
            ValueError: naming the first field that is missing, or is not what it must be.
        """
        try:
            _SCHEMA.validate_python(values, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "its record"
            raise ValueError(f"{where}: {first['msg']}") from error
        known = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
        spec, start = values["input"], values.get("start")
        return cls(
            **{
                **known,
                "input": InputSpec(tuple(spec["mean"]), tuple(spec["std"])),
                "start": WarmStart(**start) if start else None,
                "numerics": values.get("numerics") or {},
            }
        )


def _check_input(spec: "_Input") -> "_Input":
    if not 0 < len(spec["mean"]) == len(spec["std"]):
        raise ValueError("a mean and a deviation for each channel are needed")
    return spec


def _check_lengths(columns: "_Validation") -> "_Validation":
    if len({len(values) for values in columns.values()}) != 1:  # type: ignore[arg-type]
        raise ValueError("its columns have several lengths")
    return columns


def _check_epochs(rows: list["_Epoch"]) -> list["_Epoch"]:
    if [row["epoch"] for row in rows] != list(range(len(rows))):
        raise ValueError("its rows are not in the order of their epochs")
    return rows


def _check_split(split: "_Split") -> "_Split":
    edges, bins = split["edges"], split["age_bins"]
    if len(edges) != bins + 1 or sorted(edges) != edges:
        raise ValueError(f"its edges are not the {bins + 1} ascending ones of its age_bins")
    hashes, train, validation = split["file_sha256"], set(split["train"]), set(split["validation"])
    if unknown := (train | validation) - set(hashes):
        raise ValueError(f"file_sha256 lacks {len(unknown)} of its images")
    apart = {hashes[i] for i in train}.isdisjoint(hashes[i] for i in validation)
    if split["protocol"] in ("disjoint", "natural") and not apart:
        raise ValueError(f"its protocol is {split['protocol']}, and its two sides share images")
    if "population" in split and len(split["population"]["counts"]) != 2 * bins:
        raise ValueError("population.counts are not those of its groups")
    return split


_Numbers = Sequence[bool | int | float]  # of a network that diverged, also NaN and infinity
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Names = Annotated[list[str], Field(min_length=1)]


class _Input(TypedDict):
    mean: Sequence[_Finite]
    std: Sequence[Annotated[float, Field(gt=0, allow_inf_nan=False)]]


class _Model(TypedDict):
    _target_: str


class _Data(TypedDict):
    root: str
    image_size: PositiveInt


class _Trainer(TypedDict):
    max_epochs: PositiveInt


class _Epoch(TypedDict):
    epoch: int
    train_mae: float
    val_mae: float | None
    lr: float


class _Start(TypedDict):
    experiment: str
    ckpt: str
    val_mae: float


class _Medians(TypedDict):
    all: float
    girls: float
    boys: float


class _Population(TypedDict):
    counts: list[NonNegativeInt]
    medians: _Medians


class _Inherited(TypedDict):
    ids: list[str]
    sha256: list[str]


class _Validation(TypedDict):
    id: list[str]
    male: _Numbers
    bone_age: _Numbers
    predicted: _Numbers


class _Config(TypedDict):
    seed: NonNegativeInt
    model: _Model
    data: _Data
    optimizer: dict[str, Any]
    trainer: _Trainer


class _Split(TypedDict):
    protocol: str
    age_bins: PositiveInt
    samples_per_group: PositiveInt
    val_fraction: _Finite
    seed: NonNegativeInt
    edges: list[_Finite]
    train: _Names
    validation: _Names
    file_sha256: dict[str, str]
    pixel_sha256: NotRequired[dict[str, str]]
    draws: NotRequired[list[Sequence[NonNegativeInt]]]
    inherited_training_images: NotRequired[_Inherited]
    population: NotRequired[_Population]


class _Metadata(TypedDict):
    version: str
    experiment: str
    config: _Config
    precision: str
    input: Annotated[_Input, AfterValidator(_check_input)]
    split: Annotated[_Split, AfterValidator(_check_split)]
    epoch: NonNegativeInt
    validation: Annotated[_Validation, AfterValidator(_check_lengths)]
    epochs: NotRequired[Annotated[list[_Epoch], AfterValidator(_check_epochs)] | None]
    start: NotRequired[_Start | None]
    numerics: NotRequired[dict[str, Any]]
    root: NotRequired[str]
    bit_depths: NotRequired[list[PositiveInt]]


_SCHEMA = TypeAdapter(_Metadata)  # what it does not name may be there
