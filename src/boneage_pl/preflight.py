"""What can be refused before a run folder is made."""

import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from boneage_pl.command import next_command, same_command
from boneage_pl.errors import BoneageError
from boneage_pl.runs import find_checkpoint, newest_run


class Preflight(Callback):
    """Hydra calls this with the composed configuration, before it writes anything."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Check a single run; Hydra turns exceptions here into warnings, so a refusal exits by itself."""
        try:
            check(config)
        except BoneageError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)


def check(config: DictConfig) -> None:
    """Raise `BoneageError` for a configuration that cannot be right."""
    # as Hydra does next: the folder's name asks it for the experiment
    HydraConfig.instance().set_config(config)
    check_numbers(config)
    find_start(config)
    run = Path(config.hydra.run.dir)
    if (run / "metrics.csv").exists() or (run / "checkpoints").exists():
        raise BoneageError(
            f"{run} already holds a run, and nothing in it is overwritten.\n"
            "Choose another hydra.run.dir, or leave it out for a new folder by date and time."
        )


def check_numbers(config: DictConfig) -> None:
    """Raise `BoneageError` for a number that is none, or is out of its range."""
    data, whole, real = config.data, (int,), (int, float)
    for name, value, kind, lowest in (
        ("seed", config.seed, whole, 0),
        ("data.batch_size", data.batch_size, whole, 1),
        ("data.image_size", data.image_size, whole, 1),
        ("data.age_bins", data.age_bins, whole, 1),
        ("data.samples_per_group", data.samples_per_group, whole, 2),
        ("data.workers", 0 if data.workers is None else data.workers, whole, 0),
        ("data.validation_share", data.validation_share, real, 0),
        ("trainer.max_epochs", config.trainer.max_epochs, whole, 1),
        ("optimizer.lr", config.optimizer.get("lr", 0), real, 0),
    ):
        if not isinstance(value, kind) or isinstance(value, bool) or value < lowest:
            what = "a whole number" if kind == whole else "a number"
            raise BoneageError(f"{name}={value}: it must be {what} of {lowest} or more.")


def find_start(config: DictConfig) -> Path | None:
    """Return the checkpoint to start from, or `None` for random weights.

    Raises:
        BoneageError: `ckpt=` names nothing, or the experiment cannot do without it.
    """
    if config.ckpt is not None:
        return find_checkpoint(str(config.ckpt), Path(config.outputs))
    if config.starts_from is not None:
        raise _no_checkpoint(config)
    return None


def _no_checkpoint(config: DictConfig) -> BoneageError:
    experiment = HydraConfig.get().runtime.choices["experiment"]
    run = newest_run(Path(config.outputs), config.starts_from)
    if run is None:
        advice = f"Train {config.starts_from} first:\n  {next_command(config.starts_from, None)}"
    else:
        advice = f"With the newest {config.starts_from} run here:\n  {same_command(str(run))}"
    return BoneageError(
        f"{experiment} starts from the weights of {config.starts_from} and needs ckpt=.\n{advice}"
    )
