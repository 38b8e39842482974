"""Expand `resume=` to the configuration of an interrupted run."""

import shlex
import sys
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import configure_log, setup_globals
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from boneage_pl.cli import CONF_DIR
from boneage_pl.cli.checks import check_values
from boneage_pl.cli.overrides import quote_override, resume_command
from boneage_pl.errors import BoneAgeError
from boneage_pl.training.run_dir import RESUMABLE_OPTIONS, is_running, load_run_config, to_plain
from boneage_pl.training.runs import HYDRA_OVERRIDES, SUMMARY, shortest_path, unfinished_runs
from boneage_pl.training.trusted_targets import check_trusted_targets
from boneage_pl.utils.files import expand_path


def expand_resume(arguments: list[str]) -> DictConfig:
    """Return the configuration of the run that `resume=` names, and set up Hydra for it.

    Raises:
        BoneAgeError: no such run, a finished one, or options that cannot change.
    """
    options = _typed_overrides(arguments)
    trainer = options.pop("trainer", None)
    run = _find_run(str(options.pop("resume")), expand_path(str(options.get("output_dir", "outputs"))))
    # passed on to the processes that Lightning starts
    same = shlex.split(quote_override("resume", str(shortest_path(run.resolve()))))
    sys.argv[1:] = [*same, *(a for a in arguments if not a.lstrip("+").startswith("resume="))]
    config = load_run_config(run, "config")
    if trainer is not None:  # devices and strategy may change
        chosen = _compose_trainer(str(trainer))
        options = {f"trainer.{name}": chosen[name] for name in ("strategy", "devices")} | options
    if fixed := [
        key
        for key in options
        if key not in RESUMABLE_OPTIONS and OmegaConf.select(config, key) != options[key]
    ]:
        raise BoneAgeError(
            f"resume={run}: {', '.join(fixed)} cannot change in a resumed run, only locations, hardware\n"
            "and trainer.max_epochs."
        )
    check_trusted_targets(_resolved(config, run), options)
    for key, value in options.items():
        OmegaConf.update(config, key, value)
    check_values(config)
    if (run / SUMMARY).exists() and "trainer.max_epochs" not in options:
        longer = OmegaConf.select(config, "trainer.max_epochs", default=0) + 10
        raise BoneAgeError(
            f"resume={run}: the run is finished. To train longer, raise the number of epochs:\n"
            f"  {resume_command(run)} trainer.max_epochs={longer}"
        )
    if (option := options.get("trainer.max_epochs")) and option < (done := _epochs_trained(run)):
        raise BoneAgeError(f"trainer.max_epochs={option}: {done} epochs have been trained already.")
    _set_up_hydra(run)
    return config


def _compose_trainer(name: str) -> dict[str, Any]:
    """Return the options of `trainer=<name>`."""
    if name not in ("default", "ddp"):
        raise BoneAgeError(f"trainer={name}: resume with trainer=default or trainer=ddp.")
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return to_plain(compose("config", overrides=[f"trainer={name}"]).trainer)


def _epochs_trained(run: Path) -> int:
    try:
        return max((run / "metrics.csv").read_text(encoding="utf-8").count("\n") - 1, 0)
    except OSError:
        return 0


def _resolved(config: DictConfig, run: Path) -> Any:
    try:
        return to_plain(config)  # an interpolation may yield a dictionary
    except OmegaConfBaseException as error:
        raise BoneAgeError(f"{run}/.hydra/config.yaml cannot be resolved: {error}") from error


def _typed_overrides(arguments: list[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for argument in arguments:
        try:
            parsed = OverridesParser.create().parse_override(argument)
        except HydraException as error:
            raise BoneAgeError(f"{argument}: {str(error).splitlines()[0]}") from error
        key = parsed.key_or_group
        if key == "resume" and not parsed.value():
            raise BoneAgeError("resume= is empty: give a run folder, or latest.")
        if key == "ckpt":
            raise BoneAgeError(
                "ckpt= and resume= exclude each other: ckpt= starts a new run from a checkpoint's weights,\n"
                "resume= continues an interrupted run."
            )
        if not key.startswith("hydra."):  # added by Lightning for its processes
            options[key] = parsed.value()
    return options


def _find_run(name: str, outputs: Path) -> Path:
    if name != "latest":
        run = expand_path(name)
        if (run / HYDRA_OVERRIDES).is_file():
            return run
        available = ", ".join(str(r) for r in unfinished_runs(outputs)[:5]) or "none"
        raise BoneAgeError(f"resume={name}: not a run folder. Unfinished runs under {outputs}/: {available}.")
    for run in unfinished_runs(outputs):
        if not is_running(run):
            return run
    raise BoneAgeError(f"resume=latest: no interrupted run under {outputs}/.")


def _set_up_hydra(run: Path) -> None:
    """Set up Hydra with the run's folder, experiment and options.

    The logging configuration, which can name any code, comes from conf/ and not from the run.
    """
    setup_globals()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        hydra_config = compose("config", return_hydra_config=True)
    try:
        record = load_run_config(run, "hydra").hydra
        runtime = {
            "choices": {str(k): str(v) for k, v in record.runtime.choices.items()},
            "config_sources": [
                {key: str(source[key]) for key in ("path", "schema", "provider")}
                for source in record.runtime.config_sources
            ],
            "output_dir": str(run.resolve()),
        }
        overrides = [str(override) for override in record.overrides.task]
    except (AttributeError, KeyError, TypeError, OmegaConfBaseException) as error:
        raise BoneAgeError(f"{run}/.hydra/hydra.yaml is not a Hydra configuration of a run.") from error
    with read_write(hydra_config), open_dict(hydra_config):
        for key, value in runtime.items():
            OmegaConf.update(hydra_config, f"hydra.runtime.{key}", value, force_add=True)
        hydra_config.hydra.overrides.task = overrides
        hydra_config.hydra.run.dir = str(run.resolve())
        hydra_config.hydra.mode = "RUN"
    HydraConfig.instance().set_config(hydra_config)
    configure_log(hydra_config.hydra.job_logging, hydra_config.hydra.verbose)
