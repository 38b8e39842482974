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
    """Return the configuration of the run that `resume=` names, with Hydra set up as that run had it.

    Raises:
        BoneAgeError: no such run, a finished one, or options that would make it another experiment.
    """
    options = _typed_overrides(arguments)
    trainer = options.pop("trainer", None)
    run = _find_run(str(options.pop("resume")), expand_path(str(options.get("output_dir", "outputs"))))
    # the processes that Lightning starts are given these: they resume the same run
    same = shlex.split(quote_override("resume", str(shortest_path(run.resolve()))))
    sys.argv[1:] = [*same, *(a for a in arguments if not a.lstrip("+").startswith("resume="))]
    config = load_run_config(run, "config")
    if trainer is not None:  # of which the devices and their strategy may change
        chosen = _compose_trainer(str(trainer))
        options = {f"trainer.{name}": chosen[name] for name in ("strategy", "devices")} | options
    if wrong := [
        key
        for key in options
        if key not in RESUMABLE_OPTIONS and OmegaConf.select(config, key) != options[key]
    ]:
        raise BoneAgeError(
            f"resume={run}: {', '.join(wrong)} would make it another experiment. A run goes on as it began;\n"
            "what may change is where and on what it runs, and trainer.max_epochs."
        )
    check_trusted_targets(_resolved(config, run), options)
    for key, value in options.items():
        OmegaConf.update(config, key, value)
    check_values(config)
    if (run / SUMMARY).exists() and "trainer.max_epochs" not in options:
        longer = OmegaConf.select(config, "trainer.max_epochs", default=0) + 10
        raise BoneAgeError(
            f"resume={run}: that run is finished. To train it for longer, set its last epoch:\n"
            f"  {resume_command(run)} trainer.max_epochs={longer}"
        )
    if (option := options.get("trainer.max_epochs")) and option < (done := _epochs_trained(run)):
        raise BoneAgeError(f"trainer.max_epochs={option}: {done} epochs are trained already.")
    _set_up_hydra(run)
    return config


def _compose_trainer(name: str) -> dict[str, Any]:
    """Return the options of `trainer=<name>`, of the project's own."""
    if name not in ("default", "ddp"):
        raise BoneAgeError(f"trainer={name}: a run goes on with trainer=default or trainer=ddp.")
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return to_plain(compose("config", overrides=[f"trainer={name}"]).trainer)


def _epochs_trained(run: Path) -> int:
    try:
        return max((run / "metrics.csv").read_text(encoding="utf-8").count("\n") - 1, 0)
    except OSError:
        return 0


def _resolved(config: DictConfig, run: Path) -> Any:
    try:
        return to_plain(config)  # an interpolation may make a dictionary of a text
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
            raise BoneAgeError("resume= is empty: name a run's folder, or latest.")
        if key == "ckpt":
            raise BoneAgeError(
                "ckpt= and resume= exclude each other: ckpt= starts a new run from a checkpoint's weights,\n"
                "and resume= continues a run where it stopped."
            )
        if not key.startswith("hydra."):  # of the processes that Lightning starts
            options[key] = parsed.value()
    return options


def _find_run(name: str, outputs: Path) -> Path:
    if name != "latest":
        run = expand_path(name)
        if (run / HYDRA_OVERRIDES).is_file():
            return run
        there = ", ".join(str(r) for r in unfinished_runs(outputs)[:5]) or "none"
        raise BoneAgeError(f"resume={name}: no run's folder. Unfinished runs under {outputs}/: {there}.")
    for run in unfinished_runs(outputs):
        if not is_running(run):
            return run
    raise BoneAgeError(f"resume=latest: there is no unfinished run under {outputs}/ that is not running now.")


def _set_up_hydra(run: Path) -> None:
    """Set Hydra up with the run's folder, experiment and options; nothing else of its record is used.

    How logs are written comes from conf/ anew: a logging configuration can name any code.
    """
    setup_globals()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        ours = compose("config", return_hydra_config=True)
    try:
        record = load_run_config(run, "hydra").hydra
        known = {
            "choices": {str(k): str(v) for k, v in record.runtime.choices.items()},
            "config_sources": [
                {key: str(source[key]) for key in ("path", "schema", "provider")}
                for source in record.runtime.config_sources
            ],
            "output_dir": str(run.resolve()),
        }
        overrides = [str(override) for override in record.overrides.task]
    except (AttributeError, KeyError, TypeError, OmegaConfBaseException) as error:
        raise BoneAgeError(f"{run}/.hydra/hydra.yaml is not Hydra's record of a run.") from error
    with read_write(ours), open_dict(ours):
        for key, value in known.items():
            OmegaConf.update(ours, f"hydra.runtime.{key}", value, force_add=True)
        ours.hydra.overrides.task = overrides
        ours.hydra.run.dir = str(run.resolve())
        ours.hydra.mode = "RUN"
    HydraConfig.instance().set_config(ours)
    configure_log(ours.hydra.job_logging, ours.hydra.verbose)
