"""The files that a run has before its first step."""

from pathlib import Path

import pandas as pd
from torch import nn

from boneage_pl.run.beginning import InitialState
from boneage_pl.run.callbacks import EpochLogger
from boneage_pl.run.runs import SUMMARY
from boneage_pl.run.saving import warn_if_low_disk_space
from boneage_pl.run.state import restore_best


def write_run_files(
    run: Path,
    beginning: InitialState,
    network: nn.Module,
    split: pd.DataFrame,
    skipped: pd.DataFrame,
    epochs: EpochLogger,
) -> None:
    """Write the split, what was left out and run.json; a run that goes on has what its checkpoint knew.

    Says beforehand if the disk may not hold what will be saved.
    """
    warn_if_low_disk_space(network, run)
    split.to_csv(run / "split.csv", index=False)
    if len(skipped):
        skipped.to_csv(run / "skipped.csv", index=False)
    epochs.record.write()
    if beginning.checkpoint and beginning.resumed:
        epochs.write()
        restore_best(run, beginning.checkpoint, epochs.history)
        (run / SUMMARY).unlink(missing_ok=True)  # of a run that grows; written again at its end
