"""Metadata in a checkpoint: configuration, split, validation predictions."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from boneage_pl.data.images.resize import ResizeSpec
from boneage_pl.data.split import BALANCED
from boneage_pl.model.input_spec import InputSpec
from boneage_pl.training.history import EpochMetrics

Test = Callable[[Any], bool]


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
        _check_record(values)
        known = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
        return cls(
            **{
                **known,
                "config": values["config"],
                "input": InputSpec.parse(values),
                "start": WarmStart(**values["start"]) if values.get("start") else None,
                "numerics": values.get("numerics") or {},
            }
        )


def _check_record(record: Any) -> None:
    _check_keys("", record, _REQUIRED_KEYS, _OPTIONAL_KEYS)
    _check_keys("config", record["config"], _CONFIG)
    _check_keys("config.data", record["config"]["data"], {"root": _text, "image_size": _integer(1)})
    _check_keys("config.trainer", record["config"]["trainer"], {"max_epochs": _integer(1)})
    _check_validation(record["validation"])
    for number, row in enumerate(record.get("epochs") or []):
        _check_keys(f"epochs[{number}]", row, {"epoch": partial(_is_integer_value, number), **_ROW})
    if record.get("start") is not None:
        _check_keys("start", record["start"], {"experiment": _text, "ckpt": _text, "val_mae": _number})
    _check_split(record["split"])


def _check_validation(answers: Any) -> None:
    _check_keys(
        "validation", answers, {key: _type_test(list) for key in ("id", "male", "bone_age", "predicted")}
    )
    if len({len(values) for values in answers.values()}) != 1:
        raise ValueError("validation: its columns have several lengths")
    _list_of("validation.id", answers["id"], _text)
    for key in ("male", "bone_age", "predicted"):
        _list_of(f"validation.{key}", answers[key], _number)


def _check_split(split: Any) -> None:
    may = dict.fromkeys(("population", "pixel_sha256", "inherited_training_images"), _type_test(dict))
    _check_keys("split", split, _SPLIT, {**may, "draws": _type_test(list)})
    for pair in split.get("draws", []):
        _list_of("split.draws", pair, _integer(0))
    edges = split["edges"]
    _list_of("split.edges", edges, _is_finite)
    if len(edges) != split["age_bins"] + 1 or sorted(edges) != edges:
        raise ValueError(f"split.edges are not the {split['age_bins'] + 1} ascending edges of its age_bins")
    for side in ("train", "validation"):
        _list_of(f"split.{side}", split[side], _text)
        if not split[side]:
            raise ValueError(f"split.{side} is empty")
    hashes = split["file_sha256"]
    _list_of("split.file_sha256", [*hashes, *hashes.values()], _text)
    train, validation = set(split["train"]), set(split["validation"])
    if unknown := (train | validation) - set(hashes):
        raise ValueError(f"split.file_sha256 lacks {len(unknown)} of its images")
    _list_of("split.pixel_sha256", list(split.get("pixel_sha256", {}).values()), _text)
    if "inherited_training_images" in split:
        inherited, name = split["inherited_training_images"], "split.inherited_training_images"
        _check_keys(name, inherited, dict.fromkeys(("ids", "sha256"), _type_test(list)))
        _list_of(name, [*inherited["ids"], *inherited["sha256"]], _text)
    protocol = split["protocol"]
    if protocol in ("disjoint", "natural") and {hashes[i] for i in train} & {hashes[i] for i in validation}:
        raise ValueError(f"split: its protocol is {protocol}, and its two sides share images")
    if "population" in split:
        population = split["population"]
        _check_keys("split.population", population, {"counts": _type_test(list), "medians": _type_test(dict)})
        _list_of("split.population.counts", population["counts"], _integer(0))
        if len(population["counts"]) != 2 * split["age_bins"]:
            raise ValueError("split.population.counts are not those of its groups")
        _check_keys(
            "split.population.medians",
            population["medians"],
            dict.fromkeys(("all", "girls", "boys"), _number),
        )


def _check_keys(
    where: str, values: Any, must: Mapping[str, Test], may: Mapping[str, Test] | None = None
) -> None:
    if not isinstance(values, dict):
        raise ValueError(f"{where or 'its record'} is not a table of values")
    for key, test in {**must, **(may or {})}.items():
        name = f"{where}.{key}" if where else key
        if key not in values:
            if key in must:
                raise ValueError(f"{name} is missing")
        elif not test(values[key]):
            raise ValueError(f"{name} is not what it must be")


def _list_of(name: str, values: list[Any], test: Test) -> None:
    if not all(map(test, values)):
        raise ValueError(f"{name} holds other values than it must")


def _type_test(*kinds: type) -> Test:
    return lambda value: isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def _integer(lowest: int) -> Test:
    return lambda value: _type_test(int)(value) and value >= lowest


def _is_integer_value(number: int, value: Any) -> bool:
    return _type_test(int)(value) and bool(value == number)


def _is_finite(value: Any) -> bool:
    return _number(value) and math.isfinite(value)


_text = _type_test(str)
_number = _type_test(int, float, bool)  # of a network that diverged, also NaN and infinity

_REQUIRED_KEYS: dict[str, Test] = {
    "version": _text,
    "experiment": _text,
    "config": _type_test(dict),
    "precision": _text,
    "split": _type_test(dict),
    "epoch": _integer(0),
    "validation": _type_test(dict),
}
# what checkpoints from before it was recorded lack
_OPTIONAL_KEYS: dict[str, Test] = {
    "epochs": _type_test(list, type(None)),
    "start": _type_test(dict, type(None)),
    "numerics": _type_test(dict),
    "root": _text,
    "bit_depths": lambda value: isinstance(value, list) and all(map(_integer(1), value)),
}
_CONFIG: dict[str, Test] = {
    "seed": _integer(0),
    "model": _type_test(dict),
    "data": _type_test(dict),
    "optimizer": _type_test(dict),
    "trainer": _type_test(dict),
}
_ROW: dict[str, Test] = {"train_mae": _number, "val_mae": _type_test(int, float, type(None)), "lr": _number}
_SPLIT: dict[str, Test] = {
    "protocol": _text,
    "age_bins": _integer(1),
    "samples_per_group": _integer(1),
    "val_fraction": _is_finite,
    "seed": _integer(0),
    "edges": _type_test(list),
    "train": _type_test(list),
    "validation": _type_test(list),
    "file_sha256": _type_test(dict),
}
