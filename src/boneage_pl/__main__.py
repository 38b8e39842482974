"""The command line: compose the configuration, call train()."""

import shutil
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from omegaconf import DictConfig

from boneage_pl.command import check_paths
from boneage_pl.conf_path import CONF
from boneage_pl.errors import BoneageError
from boneage_pl.usage import usage

_HYDRA_ONLY = ("--cfg", "-c", "--info", "-i", "--hydra-help", "--version", "--shell-completion", "-sc")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def run(config: DictConfig) -> None:
    """Train one composed experiment."""
    from boneage_pl.train import train  # imports torch: not before the configuration is known to be right

    try:
        train(config)
    except (BoneageError, InstantiationException) as raised:
        # Hydra wraps what a constructor raises; where it is not ours, its words name option and reason
        error = raised.__cause__ if isinstance(raised.__cause__, BoneageError) else raised
        _remove_if_nothing_was_made(Path(HydraConfig.get().runtime.output_dir), Path(config.outputs))
        _refuse(error)


def main() -> None:
    """Answer `--help` and a command without an experiment at once; leave the rest to Hydra."""
    arguments = sys.argv[1:]
    asked = {"--help", "-h"} & set(arguments)
    inspecting = any(a.split("=")[0] in _HYDRA_ONLY for a in arguments)
    if asked or not (inspecting or any(a.startswith("+experiment=") for a in arguments)):
        print(usage(arguments))
        sys.exit(0 if asked or not arguments else 2)
    try:
        check_paths(arguments)
    except BoneageError as error:
        _refuse(error)
    try:
        run()
    except SystemExit as stop:  # Hydra exits with 1 for what it refuses, as Python does for a crash
        sys.exit(stop.code if HydraConfig.initialized() else stop.code and 2)


def _refuse(error: BaseException) -> None:
    # a loader process hands its errors over with its own traceback before them
    message = str(error).rpartition("BoneageError: ")[2].strip()
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def _remove_if_nothing_was_made(folder: Path, outputs: Path) -> None:
    """Remove a run folder that holds nothing but Hydra's record of the refused command."""
    if {entry.name for entry in folder.iterdir()} <= {".hydra", "boneage_pl.log"}:
        shutil.rmtree(folder)
        experiment = folder.parent
        if experiment.parent == outputs.resolve() and not any(experiment.iterdir()):
            experiment.rmdir()


if __name__ == "__main__":
    main()
