"""Where a run begins: at random weights, at those of another run, or where it stopped."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torch import nn
from torch.optim import Optimizer

from boneage_pl.cli.building import built
from boneage_pl.errors import BoneageError
from boneage_pl.machine.hardware import say_other_arithmetic
from boneage_pl.model.optimizer import whole_run_option
from boneage_pl.run.checkpoint import Checkpoint, check_same_network, load_checkpoint, network_of
from boneage_pl.run.folder import differences, plain
from boneage_pl.run.history import Row
from boneage_pl.run.preflight import find_start
from boneage_pl.run.record import Start
from boneage_pl.run.state import check_training_state, newest_state

log = logging.getLogger(__name__)


@dataclass
class Beginning:
    """What a run has before its first step.

    Args:
        checkpoint: whose weights it has; `None` for random ones.
        resumed: whether it is the run's own, and the run goes on from it.
    """

    checkpoint: Checkpoint | None
    resumed: bool

    @classmethod
    def of(cls, cfg: DictConfig, run: Path) -> "Beginning":
        """Find it in the run's folder, or else as `ckpt` says.

        Raises:
            BoneageError: a checkpoint that cannot be read, or is of another network or experiment.
        """
        if state := newest_state(run):
            _check_same_experiment(cfg, state)
            # never to fewer epochs than were ever asked for
            begun = state.record.config["trainer"]["max_epochs"]
            cfg.trainer.max_epochs = max(cfg.trainer.max_epochs, begun)
            if cfg.trainer.max_epochs > begun and (option := whole_run_option(cfg.scheduler)):
                raise BoneageError(
                    f"trainer.max_epochs={cfg.trainer.max_epochs}: the schedule, whose {option} is the whole "
                    f"run, was begun for {begun} epochs.\nStart a new run of as many epochs as it is to have."
                )
            return cls(state, resumed=True)
        if ckpt := find_start(cfg):
            start = load_checkpoint(ckpt)
            check_same_network(start, plain(cfg.model))
            return cls(start, resumed=False)
        return cls(None, resumed=False)

    def network(self, model: DictConfig) -> nn.Module:
        """Return the network, with the weights that the run begins with."""
        return network_of(self.checkpoint, model) if self.checkpoint else built(model, "model")

    @property
    def split(self) -> dict[str, Any] | None:
        """The split that it brings along."""
        return self.checkpoint.record.split if self.checkpoint else None

    @property
    def precision(self) -> str | None:
        """The arithmetic that the run was trained in so far."""
        return self.checkpoint.record.precision if self.checkpoint and self.resumed else None

    @property
    def epochs(self) -> list[Row]:
        """The epochs that are behind it."""
        return (self.checkpoint.record.epochs or []) if self.checkpoint and self.resumed else []

    @property
    def start(self) -> Start | None:
        """What the run started from, if that is known by now."""
        return self.checkpoint.record.start if self.checkpoint and self.resumed else None

    @property
    def to_be_measured(self) -> bool:
        """Whether the error of what it starts from is not known on this run's validation images."""
        return self.checkpoint is not None and not self.resumed

    @property
    def path(self) -> Path | None:
        """The file that Lightning goes on from."""
        return self.checkpoint.path if self.checkpoint and self.epochs else None

    def check(self, optimizer: Optimizer) -> None:
        """Raise `BoneageError` unless what training goes on from fits the optimiser; then let go of it."""
        if self.checkpoint and self.epochs:
            check_training_state(self.checkpoint, optimizer)
        if self.checkpoint:
            self.checkpoint.let_go()

    def measure(self, val_mae: float) -> Start:
        """Say and return what a new run starts from, once its error in months is known."""
        assert self.checkpoint is not None
        log.info("validation MAE of %s before the first step: %.4f months", self.checkpoint.path, val_mae)
        return Start(self.checkpoint.record.experiment, str(self.checkpoint.path), val_mae)

    def say(self, run: Path, max_epochs: int, arithmetic: dict[str, Any]) -> None:
        """Say that a run goes on, and what is otherwise than before."""
        if self.checkpoint and self.resumed:
            log.info("continuing %s after %d of %d epochs", run, len(self.epochs), max_epochs)
            say_other_arithmetic(self.checkpoint.record.arithmetic, arithmetic)


def _check_same_experiment(cfg: DictConfig, state: Checkpoint) -> None:
    if changed := differences(plain(cfg), state.record.config):
        raise BoneageError(
            f"{state.path} was trained with another {', '.join(changed[:5])}: a run goes on as it began.\n"
            "Start a new run for another configuration."
        )
