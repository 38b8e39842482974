"""The command that compares runs, or files of answers."""

from omegaconf import DictConfig

from boneage_pl.cli.entry import start
from boneage_pl.errors import BoneageError


def compare(config: DictConfig) -> None:
    """Compare the runs that `runs` names, or the files that `answers` names.

    Raises:
        BoneageError: see `compare_runs` and `compare_answers`; neither or both are named.
    """
    if config.runs is None and config.answers is None:
        raise BoneageError("runs= is missing: say what it is (--help has an example).")
    if config.answers is not None:
        if config.runs is not None:
            raise BoneageError("runs= and answers= exclude each other.")
        from boneage_pl.report.answered import compare_answers

        compare_answers(config)
        return
    from boneage_pl.report.comparing import compare_runs  # imports matplotlib and pandas

    compare_runs(config)


if __name__ == "__main__":
    start(compare, "compare")
