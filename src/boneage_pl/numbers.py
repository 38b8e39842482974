"""Numbers that a person has typed: whether they can be right. Imports nothing heavy."""

from typing import Any

from omegaconf import DictConfig

from boneage_pl.errors import BoneageError


def check_number(name: str, value: Any, lowest: float, *, whole: bool = True) -> None:
    """Raise `BoneageError` unless `value` is a finite number, whole if so asked, of `lowest` or more."""
    kind = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not kind or not lowest <= value < float("inf"):
        what = "a whole number" if whole else "a number"
        raise BoneageError(f"{name}={value}: it must be {what} of {lowest} or more.")


def check_data_numbers(config: DictConfig) -> None:
    """Check the numbers of a data set's configuration; where `null` is allowed, it passes."""
    data = config.data
    check_number("seed", config.seed, 0)
    for name, lowest in (("batch_size", 1), ("image_size", 1), ("age_bins", 1), ("samples_per_group", 2)):
        check_number(f"data.{name}", data[name], lowest)
    check_number("data.validation_share", data.validation_share, 0, whole=False)
    for name, lowest in (("workers", 0), ("prepare_workers", 1), ("prefetch_factor", 1)):
        if data[name] is not None:
            check_number(f"data.{name}", data[name], lowest)
