"""Evaluate checkpoints on radiographs with known ages and write a report."""

from omegaconf import DictConfig

from boneage_pl.cli.entrypoint import run_command
from boneage_pl.errors import BoneAgeError

SUBSETS = (None, "validation", "all")
LEAKAGE_POLICIES = ("error", "content_only", "exclude", "allow")


def evaluate(config: DictConfig) -> None:
    """Check the options and evaluate.

    Raises:
        BoneAgeError: an invalid option, or see `evaluate_checkpoints`.
    """
    for name, choices in (("subset", SUBSETS), ("leakage", LEAKAGE_POLICIES)):
        if config[name] not in choices:
            raise BoneAgeError(f"{name}={config[name]}: choose from {', '.join(filter(None, choices))}.")
    from boneage_pl.evaluation.evaluate import evaluate_checkpoints  # imports torch

    evaluate_checkpoints(config)


if __name__ == "__main__":
    run_command(evaluate, "evaluate")
