"""Train an experiment from the command line."""

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig

from boneage_pl.cli.entrypoint import exit_on_error, run_command
from boneage_pl.cli.help import format_help
from boneage_pl.cli.overrides import expand_home, expand_home_in_override
from boneage_pl.data.tables.spec import resolve_cache_dir
from boneage_pl.errors import BoneAgeError
from boneage_pl.training.config_checks import check_options, check_typed_trainer_options
from boneage_pl.training.resume import expand_resume
from boneage_pl.training.run_dir import is_rank_zero, remove_empty_run_dir
from boneage_pl.training.runs import LAST, PREVIOUS
from boneage_pl.training.sweep import summarize_sweep
from boneage_pl.utils.files import expand_path

if TYPE_CHECKING:
    from boneage_pl.data.cache.build import DatasetIndex

_HYDRA_ONLY = ("--cfg", "-c", "--info", "-i", "--hydra-help", "--version", "--shell-completion", "-sc")


def run(config: DictConfig) -> float:
    """Train one composed experiment and return its best validation MAE in months, for sweeps."""
    try:
        index = None if _needs_imagenet(config) else print_setup(config)
        from boneage_pl.train import train  # imports torch: only after configuration and data are checked

        best = train(config, index).best_val_mae
    except (BoneAgeError, InstantiationException):
        hydra = HydraConfig.get()
        remove_empty_run_dir(Path(hydra.runtime.output_dir))
        if hydra.mode == RunMode.MULTIRUN:
            summarize_sweep(Path(hydra.sweep.dir))  # for the finished runs
        raise
    return best if math.isfinite(best) else math.inf  # Optuna rejects NaN


def _needs_imagenet(config: DictConfig) -> bool:
    """Whether a run starts from ImageNet weights, which are loaded before the data."""
    fresh = config.ckpt is None and not _is_resumed()
    return fresh and config.model.get("weights") == "imagenet" and expand_path(str(config.data.root)).exists()


def _is_resumed() -> bool:
    run = Path(HydraConfig.get().runtime.output_dir)
    return (run / LAST).exists() or (run / PREVIOUS).exists()


def print_setup(config: DictConfig) -> "DatasetIndex | None":
    """Read the data set of a new run, unless it is custom or still to be generated."""
    ours = config.data.get("_target_") == "boneage_pl.data.datamodule.BoneAgeDataModule"
    if not ours or _is_resumed() or not is_rank_zero() or config.data.get("phantom"):
        return None
    from boneage_pl.data.cache.build import open_dataset  # imports pandas
    from boneage_pl.data.images.resize import ResizeSpec
    from boneage_pl.data.tables.spec import DatasetSpec

    spec = DatasetSpec.from_config(config.data)
    cached = config.data.get("cache", True)
    folder = resolve_cache_dir(config.data.get("cache_dir"), spec.root) if cached else None
    return open_dataset(spec, folder, ResizeSpec.from_config(config.data))


def main() -> None:
    """Print the help, or run a command with Hydra."""
    with exit_on_error():
        arguments = [expand_home_in_override(a) for a in sys.argv[1:]]
    wants_help = not {"--help", "-h"}.isdisjoint(arguments)
    inspecting = any(a.split("=")[0] in _HYDRA_ONLY for a in arguments)
    if wants_help or not (inspecting or any(a.startswith(("+experiment=", "resume=")) for a in arguments)):
        print(format_help(arguments))
        sys.exit(0 if wants_help or not arguments else 2)
    with exit_on_error():
        check_typed_trainer_options(arguments)
    if any(a.startswith("resume=") for a in arguments):
        with exit_on_error():
            config = expand_resume(arguments)
            expand_home(config)
            check_options(config)
            run(config)
    else:
        run_command(run, "config")


if __name__ == "__main__":
    main()
