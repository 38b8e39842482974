"""Continue a run in its own folder, with its own configuration. Imports no torch."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import configure_log, setup_globals
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from boneage_pl.command import quoted, resume_command
from boneage_pl.conf_path import CONF
from boneage_pl.errors import BoneageError
from boneage_pl.runs import FINISHED, LAST, PREVIOUS, unfinished_runs

# What may differ when a run goes on: where things are, and what they are computed with.
MACHINE = (
    "compile",
    "data.root",
    "data.store",
    "data.prepare",
    "data.prepare_workers",
    "data.workers",
    "data.prefetch_factor",
    "data.pin_memory",
    "data.persistent_workers",
    "outputs",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.enable_progress_bar",
    "trainer.num_nodes",
)
MAY_CHANGE = ("trainer.max_epochs", *MACHINE)
LOCK = ".lock"
# Beyond what the project's own configuration names, these may be built from a stored one.
_KNOWN = ("boneage_pl.", "lightning.pytorch.callbacks.", "lightning.pytorch.strategies.", "torch.optim.")


def resumed(arguments: list[str]) -> DictConfig:
    """Return the configuration of the run that `resume=` names, with Hydra set up as that run had it.

    Raises:
        BoneageError: no such run, a finished one, or options that would make it another experiment.
    """
    options = _typed(arguments)
    run = _find(str(options.pop("resume")), Path(str(options.get("outputs", "outputs"))))
    sys.argv[1:] = [
        quoted_plainly("resume", str(run.resolve())),
        *(a for a in arguments if "resume=" not in a),
    ]
    config = _stored(run, "config")
    if wrong := [
        key for key in options if key not in MAY_CHANGE and OmegaConf.select(config, key) != options[key]
    ]:
        raise BoneageError(
            f"resume={run}: {', '.join(wrong)} would make it another experiment. A run goes on as it began;\n"
            "what may change is where and on what it runs, and trainer.max_epochs."
        )
    _check_targets(config, options)
    for key, value in options.items():
        OmegaConf.update(config, key, value)
    if (run / FINISHED).exists() and "trainer.max_epochs" not in options:
        raise BoneageError(
            f"resume={run}: that run is finished. To train it for longer, say to which epoch:\n"
            f"  {resume_command(run)} trainer.max_epochs={int(config.trainer.max_epochs) + 10}"
        )
    setup_globals()
    hydra = _stored(run, "hydra")
    hydra.hydra.runtime.output_dir = str(run.resolve())
    hydra.hydra.run.dir = str(run.resolve())
    HydraConfig.instance().cfg = hydra  # type: ignore[assignment]
    configure_log(hydra.hydra.job_logging, hydra.hydra.verbose)
    return config


def quoted_plainly(key: str, value: str) -> str:
    """Return `key=value` for Hydra's grammar alone: an argument that no shell reads any more."""
    return shlex.split(quoted(key, value))[0]


def _typed(arguments: list[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for argument in arguments:
        try:
            parsed = OverridesParser.create().parse_override(argument)
        except HydraException as error:
            raise BoneageError(f"{argument}: {str(error).splitlines()[0]}") from error
        key = parsed.key_or_group
        if key == "resume" and not parsed.value():
            raise BoneageError("resume= is empty: name a run's folder, or say latest.")
        if key == "ckpt":
            raise BoneageError(
                "ckpt= and resume= exclude each other: ckpt= starts a new run from a checkpoint's weights,\n"
                "and resume= continues a run where it stopped."
            )
        if not key.startswith("hydra."):  # of the processes that Lightning starts
            options[key] = parsed.value()
    return options


def _find(name: str, outputs: Path) -> Path:
    if name != "latest":
        run = Path(name).expanduser()
        if (run / ".hydra" / "config.yaml").is_file():
            return run
        there = ", ".join(str(r) for r in unfinished_runs(outputs)[:5]) or "none"
        raise BoneageError(f"resume={name}: no run's folder. Unfinished runs under {outputs}/: {there}.")
    for run in unfinished_runs(outputs):
        if not _running(run):
            return run
    raise BoneageError(f"resume=latest: there is no unfinished run under {outputs}/ that is not running now.")


def _running(run: Path) -> bool:
    lock = FileLock(run / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def _stored(run: Path, name: str) -> DictConfig:
    path = run / ".hydra" / f"{name}.yaml"
    try:
        config = OmegaConf.load(path)
    except (OSError, ValueError, OmegaConfBaseException) as error:
        raise BoneageError(f"{path} cannot be read: {error}") from error
    except Exception as error:  # PyYAML's errors have no common type that OmegaConf promises
        raise BoneageError(f"{path} cannot be read as YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(config, DictConfig):
        raise BoneageError(f"{path} is not a run's configuration.")
    return config


def _check_targets(config: DictConfig, options: dict[str, Any]) -> None:
    """Refuse to build what neither the project nor this command names: a folder may come from a stranger."""
    own = {
        line.split("_target_:", 1)[1].split("#")[0].strip()
        for file in CONF.rglob("*.yaml")
        for line in file.read_text(encoding="utf-8").splitlines()
        if line.strip().startswith("_target_:")
    }
    for key, target in _targets(OmegaConf.to_container(config)):
        if target not in own and not target.startswith(_KNOWN) and options.get(key) != target:
            raise BoneageError(
                f"the run's configuration names {key}={target}, which is not this project's own.\n"
                f"If it is yours, repeat it: add {key}={target} to the command."
            )


def _targets(node: Any, at: str = "") -> Iterator[tuple[str, str]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        path = f"{at}.{key}" if at else str(key)
        if key == "_target_":
            yield path, str(value)
        else:
            yield from _targets(value, path)


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


def check_folder(config: DictConfig, run: Path) -> bool:
    """Return whether this command continues what `run` holds: the same one again, as a cluster requeues it.

    Raises:
        BoneageError: the folder holds another run, or a finished one.
    """
    if not holds_run(run):
        return False
    again = (run / LAST).exists() or (run / PREVIOUS).exists()
    if again and not (run / FINISHED).exists() and (run / ".hydra" / "config.yaml").exists():
        ours = {k: v for k, v in _plain(config).items() if k != "hydra"}
        if not (changed := differences(_plain(_stored(run, "config")), ours)):
            return True
        why = f"another run, which differs in {', '.join(changed[:5])}"
    else:
        why = "a run"
    raise BoneageError(
        f"{run} already holds {why}, and nothing in it is overwritten.\n"
        "Choose another hydra.run.dir, or leave it out for a new folder by date and time. To continue that:\n"
        f"  {resume_command(run)}"
    )


def _plain(config: DictConfig) -> dict[str, Any]:
    return dict(OmegaConf.to_container(config, resolve=False))  # type: ignore[arg-type]


@contextmanager
def alone_in(run: Path) -> Iterator[None]:
    """Keep every other training out of a run's folder.

    Raises:
        BoneageError: one is at work there.
    """
    lock = FileLock(run / LOCK)  # the system's own: it ends with the process that holds it
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BoneageError(f"{run} is being trained by another process.") from None
    try:
        yield
    finally:
        lock.release()
