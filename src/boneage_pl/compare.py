"""The command that compares runs."""

from omegaconf import DictConfig

from boneage_pl.cli.entry import start


def compare(config: DictConfig) -> None:
    """Compare the runs that `runs` names.

    Raises:
        BoneageError: see `compare_runs`.
    """
    from boneage_pl.report.comparing import compare_runs  # imports matplotlib and pandas

    compare_runs(config)


if __name__ == "__main__":
    start(compare, "compare")
