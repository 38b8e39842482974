"""Range checks of configuration values."""

from typing import Any

from omegaconf import DictConfig

from boneage_pl.errors import BoneAgeError

MAX_SEED = 2**32  # NumPy takes seeds below it


def check_number(
    name: str, value: Any, lowest: float, *, whole: bool = True, below: float = float("inf")
) -> None:
    """Raise `BoneAgeError` unless `value` is a number (`whole`: an integer) in [lowest, below)."""
    kind = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not kind or not lowest <= value < below:
        what = "a whole number" if whole else "a number"
        most = "" if below == float("inf") else f" and below {below}"
        raise BoneAgeError(f"{name}={value}: it must be {what} of {lowest} or more{most}.")


def check_data_numbers(config: DictConfig) -> None:
    """Check the numbers of a data set's configuration; where `null` is allowed, it passes."""
    data = config.data
    check_number("seed", config.seed, 0, below=MAX_SEED)
    for name, lowest in (
        ("batch_size", 1),
        ("image_size", 1),
        ("age_bins", 1),
        ("samples_per_group", 2),
        ("fold", 1),
    ):
        check_number(f"data.{name}", data[name], lowest)
    check_number("data.val_fraction", data.val_fraction, 0, whole=False)
    for name, lowest in (("split_seed", 0), ("num_workers", 0), ("cache_workers", 1), ("prefetch_factor", 1)):
        if data[name] is not None:
            check_number(f"data.{name}", data[name], lowest)
    if isinstance(phantom := data.get("phantom"), DictConfig):
        for name, lowest in (("count", 1), ("size", 1), ("seed", 0)):
            if phantom.get(name) is not None:
                check_number(f"data.phantom.{name}", phantom[name], lowest, below=MAX_SEED)
        if phantom.get("skeleton_age") is not None:
            check_number("data.phantom.skeleton_age", phantom.skeleton_age, 0, whole=False)
