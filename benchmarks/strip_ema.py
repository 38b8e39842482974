"""A run of `callbacks=ema` without its average: a checkpoint of the weights that training stood at.

    python -m benchmarks.strip_ema outputs/v3/…/checkpoints/best.ckpt trained.ckpt
    python -m boneage_pl.evaluate ckpt=trained.ckpt compare_with=outputs/v3/…

Training never looks at the average, so that these are the weights of the same epoch of a run without it.
"""

import argparse
import sys
from pathlib import Path

import torch


def unaveraged(checkpoint: Path, target: Path) -> None:
    """Write a checkpoint whose network is the one that the average beside it is of.

    Raises:
        SystemExit: there is no average.
    """
    content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    if "current_model_state" not in content:
        sys.exit(f"error: {checkpoint}: no average of weights; was it trained with callbacks=ema?")
    torch.save({**content, "state_dict": content["current_model_state"]}, target)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("checkpoint", "target"):
        parser.add_argument(name, type=Path)
    unaveraged(**vars(parser.parse_args()))
