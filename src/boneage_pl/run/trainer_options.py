"""Which of Lightning's Trainer options a run takes. Imports no torch.

conf/trainer/default.yaml lists those that it takes; what stands here is refused, with what does it instead.
"""

from typing import Any

import yaml
from omegaconf import DictConfig

from boneage_pl.cli import CONF_DIR
from boneage_pl.cli.checks import check_number
from boneage_pl.errors import BoneAgeError

_EPOCHS = "a run counts whole epochs: trainer.max_epochs, and trainer.limit_train_batches for shorter ones."
_LOOPS = "nothing here runs that loop of Lightning's; python -m boneage_pl.evaluate asks a trained model."
REJECTED_OPTIONS = {
    "max_steps": _EPOCHS,
    "min_steps": _EPOCHS,
    "max_time": f"{_EPOCHS}\nTo stop at a time, send the run SIGTERM (timeout 2h python …); resume= goes on.",
    "limit_test_batches": _LOOPS,
    "limit_predict_batches": _LOOPS,
    "overfit_batches": "it validates on training images. To see whether a network can learn a few images by "
    "heart,\nuse trainer.limit_train_batches= and look at the training error.",
    "val_check_interval": "a checkpoint is of an epoch's end, and is measured there; "
    "trainer.check_val_every_n_epoch= validates more seldom.",
    "log_every_n_steps": "everything is logged by epoch.",
    "logger": "a run writes metrics.csv and TensorBoard's events.",
    "callbacks": "callbacks are options of their own: +callbacks.NAME._target_=…",
    "plugins": "the project brings its own, which writes the checkpoints.",
    "enable_checkpointing": "without checkpoints there would be no run.",
    "default_root_dir": "hydra.run.dir= names a run's folder.",
    "barebones": "it switches off what a run is recorded with.",
    "enable_autolog_hparams": "hyper-parameters are written at the run's end.",
    "model_registry": "checkpoints stay in the run's folder.",
}
# Listed in conf/, because a run needs them so.
_FIXED = {
    "inference_mode": (False, "the metrics of a validation must live on into training."),
    "use_distributed_sampler": (False, "the data module shares each batch among the processes itself."),
}


def check_typed_trainer_options(arguments: list[str]) -> None:
    """Raise `BoneAgeError` for a Trainer option that a run does not take, before Hydra says it has none."""
    for argument in arguments:
        key = argument.lstrip("+~").partition("=")[0]
        if (name := key.removeprefix("trainer.")) != key and name in REJECTED_OPTIONS:
            raise _rejection(name)


def _rejection(name: Any) -> BoneAgeError:
    return BoneAgeError(f"trainer.{name} is not used here: {REJECTED_OPTIONS[name]}")


def check_trainer(trainer: DictConfig) -> None:
    """Raise `BoneAgeError` for an option of the Trainer that cannot be, or that a run does not take."""
    known = yaml.safe_load((CONF_DIR / "trainer" / "default.yaml").read_text(encoding="utf-8"))
    if trainer.get("_target_") != known["_target_"]:
        return  # a trainer of one's own takes what it takes
    for name, value in trainer.items():
        if name in REJECTED_OPTIONS and value is not None:
            raise _rejection(name)
        if name not in known and name not in REJECTED_OPTIONS:
            raise BoneAgeError(
                f"trainer.{name!s}: there is no such option; --cfg job prints those that there are."
            )
    for name, (value, why) in _FIXED.items():
        if trainer.get(name, value) != value:
            raise BoneAgeError(f"trainer.{name}={trainer[name]}: {why} Leave it out.")
    _check_strategy(trainer.get("strategy"))
    check_number("trainer.max_epochs", trainer.max_epochs, 1)
    check_number("trainer.accumulate_grad_batches", trainer.accumulate_grad_batches, 1)
    for name in ("limit_train_batches", "limit_val_batches"):
        _check_fraction(f"trainer.{name}", trainer.get(name))
    every = trainer.get("check_val_every_n_epoch", 1)
    check_number("trainer.check_val_every_n_epoch", every, 1)
    if trainer.max_epochs % every and not trainer.get("fast_dev_run"):
        raise BoneAgeError(
            f"trainer.check_val_every_n_epoch={every}: of {trainer.max_epochs} epochs the last would not be "
            f"validated.\nTake a divisor of trainer.max_epochs, or trainer.max_epochs="
            f"{every * max(1, round(trainer.max_epochs / every))}."
        )
    check_number("trainer.fast_dev_run", int(trainer.get("fast_dev_run", 0)), 0)


def _check_strategy(strategy: Any) -> None:
    if isinstance(strategy, str) and strategy != "auto" and not strategy.startswith("ddp"):
        raise BoneAgeError(
            f"trainer.strategy={strategy}: runs are trained on one device, or on several with trainer=ddp."
        )


def _check_fraction(name: str, value: Any) -> None:
    """Check a number of batches, or a share of them."""
    if value is None:
        return
    check_number(name, value, 0, whole=not isinstance(value, float))
    if value == 0 or (isinstance(value, float) and value > 1):
        raise BoneAgeError(f"{name}={value}: it must be a whole number of 1 or more, or a share up to 1.0.")


def apply_fast_dev_run(config: DictConfig) -> None:
    """Turn `trainer.fast_dev_run` into what it means: one epoch of so many batches."""
    batches = int(config.trainer.fast_dev_run)
    config.trainer.update(
        max_epochs=1,
        check_val_every_n_epoch=1,
        limit_train_batches=batches,
        limit_val_batches=batches,
    )
