"""The command that compares runs, or files of answers."""

from omegaconf import DictConfig

from boneage_pl.cli.entrypoint import run_command
from boneage_pl.errors import BoneAgeError


def compare(config: DictConfig) -> None:
    """Compare the runs that `runs` names, or the files that `answers` names.

    Raises:
        BoneAgeError: see `compare_runs` and `compare_prediction_files`; neither or both are named.
    """
    if config.runs is None and config.predictions is None:
        raise BoneAgeError("Missing required option runs= (see --help).")
    if config.predictions is not None:
        if config.runs is not None:
            raise BoneAgeError("runs= and predictions= exclude each other.")
        from boneage_pl.evaluation.compare import compare_prediction_files

        compare_prediction_files(config)
        return
    from boneage_pl.evaluation.compare import compare_runs  # imports matplotlib and pandas

    compare_runs(config)


if __name__ == "__main__":
    run_command(compare, "compare")
