"""What a run's folder holds, and whether a command may use it. Imports no torch."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from boneage_pl.cli.overrides import resume_command
from boneage_pl.errors import BoneAgeError
from boneage_pl.run.runs import HYDRA_OVERRIDES, LAST, PREVIOUS, SUMMARY

# What may differ when a run goes on: where things are, and what they are computed with.
RESUMABLE_OPTIONS = (
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


def load_run_config(run: Path, name: str, *, record: bool = False) -> DictConfig:
    """Return a run's `.hydra/<name>.yaml`, or a record's `<name>.yaml`.

    Raises:
        BoneAgeError: it cannot be read.
    """
    path = (run if record else run / ".hydra") / f"{name}.yaml"
    try:
        config = OmegaConf.load(path)
    except (OSError, ValueError, OmegaConfBaseException) as error:
        raise BoneAgeError(f"{path} cannot be read: {error}") from error
    except Exception as error:  # PyYAML's errors have no common type that OmegaConf promises
        raise BoneAgeError(f"{path} cannot be read as YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(config, DictConfig):
        raise BoneAgeError(f"{path} is not a run's configuration.")
    return config


def diff_configs(one: Any, other: Any, at: str = "") -> list[str]:
    """Return the dotted keys that two plain configurations differ in, but for what may change."""
    if at in RESUMABLE_OPTIONS:
        return []
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [*one, *(key for key in other if key not in one)]
        missing = object()
        return [
            found
            for key in keys
            for found in diff_configs(
                one.get(key, missing), other.get(key, missing), f"{at}.{key}" if at else key
            )
        ]
    return [] if one == other else [at]


def has_run(run: Path) -> bool:
    """Whether something was trained in this folder."""
    return (run / "metrics.csv").exists() or (run / "checkpoints").exists()


def check_run_dir(config: DictConfig, run: Path, *, of_sweep: bool = False) -> bool:
    """Return whether this command continues what `run` holds: the same one again, as a cluster requeues it.

    Args:
        config: of the command.
        run: the folder.
        of_sweep: whether it is one of several; then it may have ended, and only its report is made again.

    Raises:
        BoneAgeError: the folder holds another run, or a finished one.
    """
    if not has_run(run):
        return False
    again = (run / LAST).exists() or (run / PREVIOUS).exists()
    if again and (of_sweep or not (run / SUMMARY).exists()) and (run / HYDRA_OVERRIDES).exists():
        ours = {k: v for k, v in to_plain(config, resolve=False).items() if k != "hydra"}
        if not (changed := diff_configs(to_plain(load_run_config(run, "config"), resolve=False), ours)):
            return True
        why = f"another run, which differs in {', '.join(changed[:5])}"
    else:
        why = "a run"
    raise BoneAgeError(
        f"{run} already holds {why}, and nothing in it is overwritten.\n"
        "Choose another hydra.run.dir, or leave it out for a new folder by date and time. To continue that:\n"
        f"  {resume_command(run)}"
    )


def to_plain(config: DictConfig, *, resolve: bool = True) -> dict[str, Any]:
    """Return a configuration as plain values."""
    return dict(OmegaConf.to_container(config, resolve=resolve))  # type: ignore[arg-type]
