"""What a checkpoint says of itself in plain values, checked field by field before anything uses it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from boneage_pl.data.frame import Frame
from boneage_pl.data.split import BALANCED
from boneage_pl.model.input import Input
from boneage_pl.run.history import Row
from boneage_pl.run.older import of_today

Test = Callable[[Any], bool]


@dataclass
class Start:
    """What a run started from, and its MAE in months on this run's validation rows."""

    experiment: str
    ckpt: str
    val_mae: float


@dataclass
class Record:
    """A checkpoint's record: with the weights, all that is needed to use it alone.

    Args:
        version: of this project.
        experiment: the experiment's name.
        config: the run's whole configuration, resolved.
        precision: Lightning's name of the arithmetic it was trained in.
        input: what the network wants to see.
        split: the split, see `describe_split`.
        start: what the run started from; `None` for random weights.
        arithmetic: what the last bits of a sum depend on, see `machine.hardware`; empty in older ones.
        epoch: the epoch that the checkpoint is the end of; 0 also before the first.
        epochs: the epochs so far; `None` in those from before it was recorded.
        validation: the latest validation's rows and answers, `id, male, bone_age, predicted`, and `spread`
            where the loss knows one.
        root: what `data.root` named, as an absolute path; empty in older ones.
        levels: bits that 16-bit images were read as, see `boneage_pl.data.depth`; none in older ones.
    """

    version: str
    experiment: str
    config: dict[str, Any]
    precision: str
    input: Input
    split: dict[str, Any]
    start: Start | None = None
    arithmetic: dict[str, Any] = field(default_factory=dict)
    epoch: int = 0
    epochs: list[Row] | None = None
    validation: dict[str, list[Any]] = field(default_factory=dict)
    root: str = ""
    levels: list[int] = field(default_factory=list)

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self.frame.side

    @property
    def frame(self) -> Frame:
        """The square that the images were brought into."""
        return Frame.configured(self.config["data"])

    @property
    def balanced(self) -> bool:
        """Whether its validation rows come alike from every group by sex and age."""
        return self.split["protocol"] in BALANCED

    @property
    def synthetic(self) -> bool:
        """Whether its radiographs were drawn."""
        return bool(self.config["data"].get("generate"))

    def plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)

    @classmethod
    def parse(cls, values: Any) -> "Record":
        """Read plain values, of today or of before.

        Raises:
            ValueError: naming the first field that is missing, or is not what it must be.
        """
        _check_record(values)
        known = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
        return cls(
            **{
                **known,
                "config": of_today(values["config"]),
                "input": Input.parse(values),
                "start": Start(**values["start"]) if values.get("start") else None,
                "arithmetic": values.get("arithmetic") or {},
            }
        )


def _check_record(record: Any) -> None:
    _check("", record, _RECORD, _RECORD_MAY)
    _check("config", record["config"], _CONFIG)
    _check("config.data", record["config"]["data"], {"root": _text, "image_size": _whole(1)})
    _check("config.trainer", record["config"]["trainer"], {"max_epochs": _whole(1)})
    _check_validation(record["validation"])
    for number, row in enumerate(record.get("epochs") or []):
        _check(f"epochs[{number}]", row, {"epoch": partial(_equals, number), **_ROW})
    if record.get("start") is not None:
        _check("start", record["start"], {"experiment": _text, "ckpt": _text, "val_mae": _number})
    _check_split(record["split"])


def _check_validation(answers: Any) -> None:
    _check("validation", answers, {key: _is(list) for key in ("id", "male", "bone_age", "predicted")})
    if len({len(values) for values in answers.values()}) != 1:
        raise ValueError("validation: its columns have several lengths")
    _list_of("validation.id", answers["id"], _text)
    for key in ("male", "bone_age", "predicted"):
        _list_of(f"validation.{key}", answers[key], _number)


def _check_split(split: Any) -> None:
    _check("split", split, _SPLIT, dict.fromkeys(("population", "contents", "before"), _is(dict)))
    edges = split["edges"]
    _list_of("split.edges", edges, _finite)
    if len(edges) != split["age_bins"] + 1 or sorted(edges) != edges:
        raise ValueError(f"split.edges are not the {split['age_bins'] + 1} ascending edges of its age_bins")
    for side in ("train", "validation"):
        _list_of(f"split.{side}", split[side], _text)
        if not split[side]:
            raise ValueError(f"split.{side} is empty")
    hashes = split["hashes"]
    _list_of("split.hashes", [*hashes, *hashes.values()], _text)
    train, validation = set(split["train"]), set(split["validation"])
    if unknown := (train | validation) - set(hashes):
        raise ValueError(f"split.hashes lacks {len(unknown)} of its images")
    _list_of("split.contents", list(split.get("contents", {}).values()), _text)
    if "before" in split:
        _check("split.before", split["before"], dict.fromkeys(("ids", "contents"), _is(list)))
        _list_of("split.before", [*split["before"]["ids"], *split["before"]["contents"]], _text)
    protocol = split["protocol"]
    if protocol in ("disjoint", "natural") and {hashes[i] for i in train} & {hashes[i] for i in validation}:
        raise ValueError(f"split: its protocol is {protocol}, and its two sides share images")
    if "population" in split:
        population = split["population"]
        _check("split.population", population, {"counts": _is(list), "medians": _is(dict)})
        _list_of("split.population.counts", population["counts"], _whole(0))
        if len(population["counts"]) != 2 * split["age_bins"]:
            raise ValueError("split.population.counts are not those of its groups")
        _check(
            "split.population.medians",
            population["medians"],
            dict.fromkeys(("all", "girls", "boys"), _number),
        )


def _check(where: str, values: Any, must: Mapping[str, Test], may: Mapping[str, Test] | None = None) -> None:
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


def _is(*kinds: type) -> Test:
    return lambda value: isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def _whole(lowest: int) -> Test:
    return lambda value: _is(int)(value) and value >= lowest


def _equals(number: int, value: Any) -> bool:
    return _is(int)(value) and bool(value == number)


def _finite(value: Any) -> bool:
    return _number(value) and math.isfinite(value)


_text = _is(str)
_number = _is(int, float, bool)  # of a network that diverged, also NaN and infinity

_RECORD: dict[str, Test] = {
    "version": _text,
    "experiment": _text,
    "config": _is(dict),
    "precision": _text,
    "split": _is(dict),
    "epoch": _whole(0),
    "validation": _is(dict),
}
# what checkpoints from before it was recorded lack
_RECORD_MAY: dict[str, Test] = {
    "epochs": _is(list, type(None)),
    "start": _is(dict, type(None)),
    "arithmetic": _is(dict),
    "root": _text,
    "levels": lambda value: isinstance(value, list) and all(map(_whole(1), value)),
}
_CONFIG: dict[str, Test] = {
    "seed": _whole(0),
    "model": _is(dict),
    "data": _is(dict),
    "optimizer": _is(dict),
    "trainer": _is(dict),
}
_ROW: dict[str, Test] = {"train_mae": _number, "val_mae": _is(int, float, type(None)), "lr": _number}
_SPLIT: dict[str, Test] = {
    "protocol": _text,
    "age_bins": _whole(1),
    "samples_per_group": _whole(1),
    "validation_share": _finite,
    "seed": _whole(0),
    "edges": _is(list),
    "train": _is(list),
    "validation": _is(list),
    "hashes": _is(dict),
}
