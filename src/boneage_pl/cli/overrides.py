"""Quote overrides for the shell and Hydra's grammar, expand `~`, print follow-up commands."""

import re
import shlex
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException

from boneage_pl.errors import BoneAgeError
from boneage_pl.utils.files import expand_path

PATHS = (
    "output_dir",  # first: others refer to it
    "compare_with",
    "verify_images",
    "ckpt",
    "data.root",
    "data.split_file",
    "data.cache_dir",
    "data.table",
    "gradcam_dir",
    "hydra.run.dir",
    "hydra.sweep.dir",
    "images",
    "save_records",
    "out",
    "resume",
    "runs",
    "model.weights",
    "validation.root",
)
PATH_LISTS = ("verify_images", "ckpt", "images", "runs")  # may be lists
_SPECIAL_CHARACTERS = object()  # not parsable, or a sweep
# Options of an experiment that do not apply to the next one.
_OWN_OPTIONS = (
    "experiment",
    "ckpt",
    "hydra.",
    "hydra/",
    "hparams_search",
    "trainer.max_epochs",
    "optimizer",
    "scheduler",
    "data.split_from",
    "data.split_file",
)


def as_list(named: object) -> list[str]:
    """Return the value or values of an option as a list."""
    return [str(name) for name in named] if isinstance(named, ListConfig) else [str(named)]


def quote_override(key: str, value: str) -> str:
    """Quote `key=value` for the shell and for Hydra's grammar."""
    return shlex.quote(to_grammar(key, value))


def _quote_paths(key: str, value: str) -> str:
    """Quote `key=value` like `quote_override`, with each path of a list separately."""
    if key.lstrip("+") not in PATH_LISTS or not (value.startswith("[") and value.endswith("]")):
        return quote_override(key, value)
    paths = (to_grammar(key, path.strip()).partition("=")[2] for path in value[1:-1].split(","))
    return shlex.quote(f"{key}=[{','.join(paths)}]")


def to_grammar(key: str, value: str) -> str:
    """Quote `key=value` for Hydra's grammar."""
    plain = f"{key}={value}"
    if _parses_as(plain, value):
        return plain
    # inside quotes, backslashes escape only before a quote
    escaped = re.sub(r'(\\*)("|$)', lambda m: m[1] * 2 + m[2].replace('"', '\\"'), value)
    return f'{key}="{escaped}"'


def expand_home_in_override(argument: str) -> str:
    """Expand `~` in an argument that is a path; return others unchanged."""
    key, _, value = argument.partition("=")
    if key.lstrip("+") not in PATHS or not re.match(r"~\w*(/|$)", value):
        return argument
    return to_grammar(key, str(expand_path(value)))


def check_paths(arguments: list[str]) -> None:
    """Raise `BoneAgeError`, with the quoted form, for a path that Hydra's grammar would change."""
    if {"-m", "--multirun"} & set(arguments):
        return  # commas and brackets have a meaning there
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if (
            equals
            and key.lstrip("+") in PATHS
            and value[:1] not in ("'", '"')
            and not _parses_as(argument, value)
            and not (key in PATH_LISTS and isinstance(_parse(argument), list))
        ):
            raise BoneAgeError(
                f"{argument}: Hydra's grammar needs quotes around this path. Write it as\n"
                f"  {_quote_paths(key, value)}"
            )


def expand_home(config: DictConfig) -> None:
    """Expand `~` at the start of each path in a configuration.

    Raises:
        BoneAgeError: see `expand_path`.
    """
    for key in PATHS:
        try:
            value = OmegaConf.select(config, key, throw_on_missing=False)
        except OmegaConfBaseException:  # a sweep's folder is not resolvable yet
            continue
        if isinstance(value, str):
            try:
                path = expand_path(value)
            except BoneAgeError as error:
                raise BoneAgeError(f"{key}={error}") from error
            if value.startswith("~"):
                with read_write(config):
                    OmegaConf.update(config, key, str(path))


def next_command(experiment: str, ckpt: str | None) -> str:
    """Return the command of `experiment` from `ckpt`, with the data and hardware options of this one."""
    return _command(
        experiment, ckpt, [o for o in _typed_overrides() if not o.lstrip("+~").startswith(_OWN_OPTIONS)]
    )


def resume_command(run: Path) -> str:
    """Return the command that resumes a run."""
    return f"python -m boneage_pl {quote_override('resume', str(run))}"


def same_command(ckpt: str) -> str:
    """Return the current command with another `ckpt`."""
    experiment = HydraConfig.get().runtime.choices["experiment"]
    return _command(
        experiment,
        ckpt,
        [o for o in _typed_overrides() if o.lstrip("+").split("=")[0] not in ("experiment", "ckpt")],
    )


def _typed_overrides() -> list[str]:
    return list(HydraConfig.get().overrides.task)


def _command(experiment: str, ckpt: str | None, overrides: list[str]) -> str:
    sources = HydraConfig.get().runtime.config_sources
    added = [f"--config-dir {shlex.quote(s.path)}" for s in sources if s.provider == "command-line"]
    start = [quote_override("ckpt", ckpt)] if ckpt else []
    options = [shlex.quote(o) for o in overrides]
    named = shlex.quote(f"+experiment={experiment}")
    return " ".join(["python -m boneage_pl", *added, named, *start, *options])


def _parses_as(override: str, value: str) -> bool:
    parsed = _parse(override)
    if parsed is _SPECIAL_CHARACTERS or isinstance(parsed, (list, dict)):
        return False
    return value in ("", "null") or "${" in value or str(parsed) == value


def _parse(override: str) -> Any:
    """Parse a value with Hydra's grammar, or return `_SPECIAL_CHARACTERS`."""
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException:
        return _SPECIAL_CHARACTERS
    return _SPECIAL_CHARACTERS if parsed.is_sweep_override() else parsed.value()
