"""Compare runs, records and files of predictions."""

from omegaconf import DictConfig

from boneage_pl.cli.entrypoint import run_command


def compare(config: DictConfig) -> None:
    """Compare what `runs` names.

    Raises:
        BoneAgeError: see `compare_runs`.
    """
    from boneage_pl.evaluation.compare import compare_runs  # imports matplotlib and pandas

    compare_runs(config)


if __name__ == "__main__":
    run_command(compare, "compare")
