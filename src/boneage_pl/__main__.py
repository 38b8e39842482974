"""The command line: compose the configuration, call train()."""

import math
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig

from boneage_pl.data.source import store_folder
from boneage_pl.entry import refusing, start
from boneage_pl.errors import BoneageError
from boneage_pl.report.sweep import conclude_sweep
from boneage_pl.resume import resumed
from boneage_pl.run_folder import LOCK, first_process
from boneage_pl.runs import LAST
from boneage_pl.usage import usage

if TYPE_CHECKING:
    from boneage_pl.data.found import Found

_HYDRA_ONLY = ("--cfg", "-c", "--info", "-i", "--hydra-help", "--version", "--shell-completion", "-sc")


def run(config: DictConfig) -> float:
    """Train one composed experiment and return its best validation MAE in months, for sweeps."""
    try:
        found = look(config)
        from boneage_pl.train import train  # imports torch: not before configuration and data are known

        best = train(config, found).best_val_mae
    except (BoneageError, InstantiationException):
        hydra = HydraConfig.get()
        _remove_if_nothing_was_made(Path(hydra.runtime.output_dir), Path(config.outputs))
        if hydra.mode == RunMode.MULTIRUN:
            conclude_sweep(Path(hydra.sweep.dir))  # the runs before this one are not lost
        raise
    return best if math.isfinite(best) else math.inf  # a search takes no NaN


def look(config: DictConfig) -> "Found | None":
    """Return the data set of a run that begins, where it is one of ours and there already."""
    run = Path(HydraConfig.get().runtime.output_dir)
    ours = config.data.get("_target_") == "boneage_pl.data.datamodule.BoneAgeData"
    if not ours or (run / LAST).exists() or not first_process() or config.data.get("generate"):
        return None
    from boneage_pl.data.found import find_data  # imports pandas
    from boneage_pl.data.place import Place

    place = Place.configured(config.data)
    folder = store_folder(config.data.get("store"), place.root)
    return find_data(place, folder, config.data.image_size, prepared=config.data.get("prepare", True))


def main() -> None:
    """Answer `--help` and a command without an experiment at once; leave the rest to Hydra."""
    arguments = sys.argv[1:]
    asked = {"--help", "-h"} & set(arguments)
    inspecting = any(a.split("=")[0] in _HYDRA_ONLY for a in arguments)
    if asked or not (inspecting or any(a.startswith(("+experiment=", "resume=")) for a in arguments)):
        print(usage(arguments))
        sys.exit(0 if asked or not arguments else 2)
    if any(a.startswith("resume=") for a in arguments):
        with refusing():
            run(resumed(arguments))
    else:
        start(run, "config")


def _remove_if_nothing_was_made(folder: Path, outputs: Path) -> None:
    """Remove a run folder that holds nothing but Hydra's record of the refused command."""
    # several processes of one run may be here at once
    if folder.is_dir() and {entry.name for entry in folder.iterdir()} <= {".hydra", LOCK, "boneage_pl.log"}:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.parent.parent == outputs.resolve():
            with suppress(OSError):  # other runs are in it
                folder.parent.rmdir()


if __name__ == "__main__":
    main()
