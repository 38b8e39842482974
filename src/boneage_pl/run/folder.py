"""What a run's folder holds, and whether a command may use it. Imports no torch."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from boneage_pl.cli.command import resume_command
from boneage_pl.errors import BoneageError
from boneage_pl.run.older import of_today
from boneage_pl.run.runs import FINISHED, LAST, PREVIOUS, RECORD

# What may differ when a run goes on: where things are, and what they are computed with.
MAY_CHANGE = (
    "trainer.max_epochs",
    "compile",
    "model.download",
    "data.root",
    "data.store",
    "data.prepare",
    "data.prepare_workers",
    "data.workers",
    "data.on_device",
    "data.prefetch_factor",
    "data.pin_memory",
    "data.persistent_workers",
    "outputs",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.enable_progress_bar",
    "trainer.num_nodes",
)


def stored(run: Path, name: str) -> DictConfig:
    """Return a run's `.hydra/<name>.yaml`.

    Raises:
        BoneageError: it cannot be read.
    """
    path = run / ".hydra" / f"{name}.yaml"
    try:
        config = of_today(OmegaConf.load(path))
    except (OSError, ValueError, OmegaConfBaseException) as error:
        raise BoneageError(f"{path} cannot be read: {error}") from error
    except Exception as error:  # PyYAML's errors have no common type that OmegaConf promises
        raise BoneageError(f"{path} cannot be read as YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(config, DictConfig):
        raise BoneageError(f"{path} is not a run's configuration.")
    return config


def differences(one: Any, other: Any, at: str = "") -> list[str]:
    """Return the dotted keys that two plain configurations differ in, but for what may change."""
    if at in MAY_CHANGE:
        return []
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [*one, *(key for key in other if key not in one)]
        missing = object()
        return [
            found
            for key in keys
            for found in differences(
                one.get(key, missing), other.get(key, missing), f"{at}.{key}" if at else key
            )
        ]
    return [] if one == other else [at]


def holds_run(run: Path) -> bool:
    """Whether something was trained in this folder."""
    return (run / "metrics.csv").exists() or (run / "checkpoints").exists()


def check_folder(config: DictConfig, run: Path, *, of_sweep: bool = False) -> bool:
    """Return whether this command continues what `run` holds: the same one again, as a cluster requeues it.

    Args:
        config: of the command.
        run: the folder.
        of_sweep: whether it is one of several; then it may have ended, and only its report is made again.

    Raises:
        BoneageError: the folder holds another run, or a finished one.
    """
    if not holds_run(run):
        return False
    again = (run / LAST).exists() or (run / PREVIOUS).exists()
    if again and (of_sweep or not (run / FINISHED).exists()) and (run / RECORD).exists():
        ours = {k: v for k, v in plain(config, resolve=False).items() if k != "hydra"}
        if not (changed := differences(plain(stored(run, "config"), resolve=False), ours)):
            return True
        why = f"another run, which differs in {', '.join(changed[:5])}"
    else:
        why = "a run"
    raise BoneageError(
        f"{run} already holds {why}, and nothing in it is overwritten.\n"
        "Choose another hydra.run.dir, or leave it out for a new folder by date and time. To continue that:\n"
        f"  {resume_command(run)}"
    )


def plain(config: DictConfig, *, resolve: bool = True) -> dict[str, Any]:
    """Return a configuration as plain values."""
    return dict(OmegaConf.to_container(config, resolve=resolve))  # type: ignore[arg-type]
