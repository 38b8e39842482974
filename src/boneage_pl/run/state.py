"""What a run goes on from: its newest whole checkpoint, and its best one as that left it."""

import logging
import shutil
from pathlib import Path

from torch import Tensor
from torch.optim import Optimizer

from boneage_pl.errors import BoneAgeError
from boneage_pl.run.checkpoint import TRAINING, Checkpoint, check_types, load_checkpoint
from boneage_pl.run.history import MetricsHistory
from boneage_pl.run.runs import BEST, LAST, PREVIOUS
from boneage_pl.utils.files import atomic_path

log = logging.getLogger(__name__)


def latest_checkpoint(run: Path) -> Checkpoint | None:
    """Return the newest whole checkpoint of a run, or `None` if it has saved none yet.

    A damaged one is named, and the one before it taken: the epochs since are trained again.

    Raises:
        BoneAgeError: there are checkpoints, and all are damaged.
    """
    there = [run / name for name in (LAST, PREVIOUS, BEST) if (run / name).exists()]
    for path in there:
        try:
            found = load_checkpoint(path)
            if found.metadata.epochs is not None:
                return found
            raise BoneAgeError(f"{path} does not say which epochs it has seen.")
        except BoneAgeError as error:
            log.warning("%s\nThe one before it is used.", error)
    if there:
        raise BoneAgeError(f"{run}: none of its checkpoints can be read. Start the experiment anew.")
    return None


def restore_best(run: Path, state: Checkpoint, history: MetricsHistory) -> None:
    """Make `best.ckpt` what it was when `state` was saved.

    The run may have been cut off between the two, or the file may have been damaged since. Then it is made
    again of the epochs that are still there; where the best is not, that is said, and `history` marks it as
    lost, so that the run ends with the best that it has.
    """
    wanted, whole = history.best, _epoch_of(run / BEST)
    if wanted is None or whole == wanted["epoch"]:
        return
    there = {_epoch_of(path): path for path in (run / BEST, run / PREVIOUS, state.path)}
    while history.best is not None and history.best["epoch"] not in there:
        history.best["lost"] = True
    if history.best is not wanted:
        instead = f"epoch {history.best['epoch']}" if history.best else "the next that is validated"
        log.warning(
            "%s, of epoch %d with a validation MAE of %.4f months, is damaged or missing, and its weights "
            "are nowhere else.\nThe best epoch from here on is %s.",
            run / BEST,
            wanted["epoch"],
            wanted["val_mae"],
            instead,
        )
    if whole is None and (run / BEST).exists():  # not ours to throw away
        (run / BEST).replace((run / BEST).with_suffix(".damaged"))
    if history.best is not None and history.best["epoch"] != whole:
        with atomic_path(run / BEST) as beside:
            shutil.copyfile(there[history.best["epoch"]], beside)


def _epoch_of(path: Path) -> int | None:
    """Return the epoch whose end a checkpoint is; `None` if it is damaged, or from before the first."""
    try:
        epochs = load_checkpoint(path).metadata.epochs
    except BoneAgeError:
        return None
    return epochs[-1]["epoch"] if epochs else None


def check_training_state(checkpoint: Checkpoint, optimizer: Optimizer) -> None:
    """Raise `BoneAgeError` unless `checkpoint` holds what `optimizer` goes on from, in its shapes."""
    try:
        check_types(checkpoint.training, TRAINING)
        shapes = [parameter.shape for group in optimizer.param_groups for parameter in group["params"]]
        (state,) = checkpoint.training["optimizer_states"]
        for number, moments in state["state"].items():
            if any(m.dim() and m.shape != shapes[number] for m in moments.values() if isinstance(m, Tensor)):
                raise ValueError("another shape")
        if not isinstance(checkpoint.training["loops"]["fit_loop"], dict):
            raise TypeError("the loop")
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise BoneAgeError(
            f"{checkpoint.path} lacks what training goes on from.\n"
            "Start a new run from its weights: ckpt= and that file."
        ) from error
