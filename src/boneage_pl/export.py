"""Export a trained model for use without this package."""

from pathlib import Path

from omegaconf import DictConfig

from boneage_pl.cli.entrypoint import run_command
from boneage_pl.cli.overrides import as_list
from boneage_pl.deploy.options import resolve_format
from boneage_pl.training.runs import find_checkpoints


def export(config: DictConfig) -> None:
    """Check the options and export.

    Raises:
        BoneAgeError: an invalid option, or see `export_model`.
    """
    paths = find_checkpoints(as_list(config.ckpt), Path(config.output_dir))
    kind = resolve_format(config, len(paths))
    from boneage_pl.deploy.export import export_model  # imports torch

    export_model(config, kind, paths)


if __name__ == "__main__":
    run_command(export, "export")
