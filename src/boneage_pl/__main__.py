"""Train an experiment from the command line."""

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig

from boneage_pl.cli.command import at_home, expand_home
from boneage_pl.cli.entry import refusing, start
from boneage_pl.cli.usage import usage
from boneage_pl.data.source import store_folder
from boneage_pl.errors import BoneageError
from boneage_pl.machine.home import path_of
from boneage_pl.run.hold import first_process, remove_if_nothing_was_made
from boneage_pl.run.preflight import check_options
from boneage_pl.run.resume import resumed
from boneage_pl.run.runs import LAST
from boneage_pl.run.sweep import conclude_sweep
from boneage_pl.run.trainer_options import refuse_typed

if TYPE_CHECKING:
    from boneage_pl.data.found import Found

_HYDRA_ONLY = ("--cfg", "-c", "--info", "-i", "--hydra-help", "--version", "--shell-completion", "-sc")


def run(config: DictConfig) -> float:
    """Train one composed experiment and return its best validation MAE in months, for sweeps."""
    try:
        found = None if _needs_imagenet(config) else look(config)
        from boneage_pl.train import train  # imports torch: not before configuration and data are known

        best = train(config, found).best_val_mae
    except (BoneageError, InstantiationException):
        hydra = HydraConfig.get()
        remove_if_nothing_was_made(Path(hydra.runtime.output_dir))
        if hydra.mode == RunMode.MULTIRUN:
            conclude_sweep(Path(hydra.sweep.dir))  # the runs before this one are not lost
        raise
    return best if math.isfinite(best) else math.inf  # a search takes no NaN


def _needs_imagenet(config: DictConfig) -> bool:
    """Whether a run starts from ImageNet's weights, which come before the data: they may not be available."""
    fresh = config.ckpt is None and not _is_resumed()
    return fresh and config.model.get("weights") == "imagenet" and path_of(str(config.data.root)).exists()


def _is_resumed() -> bool:
    return (Path(HydraConfig.get().runtime.output_dir) / LAST).exists()


def look(config: DictConfig) -> "Found | None":
    """Return the data set of a new run, if it is one of ours and not yet to be drawn."""
    ours = config.data.get("_target_") == "boneage_pl.data.datamodule.BoneAgeData"
    if not ours or _is_resumed() or not first_process() or config.data.get("generate"):
        return None
    from boneage_pl.data.found import find_data  # imports pandas
    from boneage_pl.data.frame import Frame
    from boneage_pl.data.place import Place

    place = Place.configured(config.data)
    folder = store_folder(config.data.get("store"), place.root)
    frame = Frame.configured(config.data)
    return find_data(place, folder, frame, prepared=config.data.get("prepare", True))


def main() -> None:
    """Print the help, or hand over to Hydra."""
    with refusing():
        arguments = [at_home(a) for a in sys.argv[1:]]
    asked = {"--help", "-h"} & set(arguments)
    inspecting = any(a.split("=")[0] in _HYDRA_ONLY for a in arguments)
    if asked or not (inspecting or any(a.startswith(("+experiment=", "resume=")) for a in arguments)):
        print(usage(arguments))
        sys.exit(0 if asked or not arguments else 2)
    with refusing():
        refuse_typed(arguments)
    if any(a.startswith("resume=") for a in arguments):
        with refusing():
            config = resumed(arguments)
            expand_home(config)
            check_options(config)
            run(config)
    else:
        start(run, "config")


if __name__ == "__main__":
    main()
