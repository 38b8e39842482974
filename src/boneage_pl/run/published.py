"""The published learning curves: the epochs that the description prints, and no others."""

import shutil
from pathlib import Path

from boneage_pl.machine.locks import one_at_a_time

# Mean absolute error in months: epoch → (train, validation, which the description calls test).
PUBLISHED = {
    "v1": {
        0: (127.16167, 63.89064),
        1: (50.03253, 43.46796),
        2: (44.57225, 57.23732),
        3: (40.53738, 46.56078),
        26: (8.69899, 10.25974),
        27: (8.70995, 11.03230),
        28: (8.73719, 10.17792),
        29: (8.66754, 10.02208),
    },
    "v2": {
        0: (9.03659, 9.25735),
        1: (8.74311, 8.19616),
        2: (8.24719, 8.32757),
        3: (8.13266, 7.84683),
        18: (5.72028, 6.82344),
        19: (5.39745, 7.31157),
        20: (4.91108, 6.12954),
        21: (4.81145, 5.98737),
    },
}
WHOLE = "whole"
BEST_PUBLISHED = 5.5949  # v2, on its own validation set


def write_published_curves(folder: Path) -> None:
    """Write the curves once, as TensorBoard runs of their own, under the tags that our runs use.

    An empty file `whole` says that a curve is there to its end; one that was cut off is written anew.
    """
    from torch.utils.tensorboard import SummaryWriter

    folder.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(folder / ".lock", f"writes {folder}"):
        for name, epochs in PUBLISHED.items():
            if (folder / name / WHOLE).exists():
                continue
            shutil.rmtree(folder / name, ignore_errors=True)
            with SummaryWriter(folder / name) as writer:
                for epoch, (train, validation) in epochs.items():
                    writer.add_scalar("mae/train", train, epoch)
                    writer.add_scalar("mae/val", validation, epoch)
            (folder / name / WHOLE).touch()
