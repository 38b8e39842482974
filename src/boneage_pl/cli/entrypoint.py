"""Run a command under Hydra: exit codes, errors without a traceback."""

import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import NoneType
from typing import Any

import hydra
import yaml
from hydra.errors import InstantiationException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, MissingMandatoryValue

from boneage_pl.cli import CONF_DIR
from boneage_pl.cli.checks import check_values
from boneage_pl.cli.help import config_dirs, group_choices, suggest_overrides
from boneage_pl.cli.overrides import check_paths, expand_home, expand_home_in_override
from boneage_pl.errors import BoneAgeError

# groups of the configuration of which a run has one object
ONE_OF = ("data", "model", "loss", "sampler", "optimizer", "scheduler", "trainer")
INTERRUPTED_MESSAGE = "stopped; the same command continues from here"


def run_command(
    task: Callable[[DictConfig], Any], config_name: str, interrupted: str = "interrupted"
) -> None:
    """Compose `conf/<config_name>.yaml` with the command line's overrides, and run `task` with it.

    What a user can cause exits 2 with its words on standard error: `BoneAgeError`, what Hydra refuses, and
    what a constructor named in the configuration refuses. Ctrl-C prints `interrupted` and exits 130.
    """
    begun = False

    @hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name=config_name)
    def run(config: DictConfig) -> Any:
        nonlocal begun
        begun = True
        with exit_on_error(interrupted):
            expand_home(config)
            check_values(config)
            return task(config)

    try:
        with exit_on_error(interrupted):
            sys.argv[1:] = map(expand_home_in_override, sys.argv[1:])
            check_paths(sys.argv[1:])
            check_config_files(sys.argv[1:])
            check_config_choices(sys.argv[1:])
            run()
    except ValueError as error:  # Hydra's, of two that exclude each other: --multirun --cfg
        if begun:
            raise
        exit_with(BoneAgeError(str(error)))
    except SystemExit as stop:  # Hydra exits with 1 for what it refuses, as Python does for a crash
        if not begun and stop.code == 1:
            for hint in suggest_overrides(sys.argv[1:], config_name):
                print(hint, file=sys.stderr)
        sys.exit(stop.code if begun else stop.code and 2)


@contextmanager
def exit_on_error(interrupted: str = "interrupted") -> Iterator[None]:
    """Turn what a user can cause into its words on standard error and an exit status (see `run_command`)."""
    try:
        yield
    except (BoneAgeError, InstantiationException) as raised:
        # Hydra wraps what a constructor raises; where it is not ours, its words name option and reason
        wrapped = isinstance(raised, InstantiationException) and isinstance(raised.__cause__, BoneAgeError)
        exit_with(raised.__cause__ if wrapped and raised.__cause__ else raised)
    except MissingMandatoryValue as missing:
        exit_with(BoneAgeError(f"Missing required option {missing.full_key}= (see --help)."))
    except ConfigAttributeError as missing:  # by a ~ on the command line, or by a file of a user's own
        exit_with(BoneAgeError(f"{missing.full_key}: this option is needed, and has been taken out."))
    except KeyboardInterrupt:
        print(f"\n{interrupted}", file=sys.stderr)
        sys.exit(130)


def check_config_files(arguments: list[str]) -> None:
    """Raise `BoneAgeError` for a file of a `--config-dir` whose settings would be used nowhere.

    Hydra passes over one with the name of one of ours, and puts an experiment's settings elsewhere that does
    not begin with its package; it reads a decimal comma as two entries.
    """
    for folder in config_dirs(arguments):
        for file in sorted(folder.rglob("*.yaml")):
            name = file.relative_to(folder)
            if (CONF_DIR / name).exists():
                raise BoneAgeError(
                    f"{file} has the name of one of the project's own files, which would be used instead.\n"
                    f"Give it another name, and choose it by that: {name.parent.name or 'config'}=<name>."
                )
            if not (CONF_DIR / name.parts[0]).is_dir():
                continue  # of no group of ours
            try:
                text = file.read_text(encoding="utf-8")
                _check_keys(file, yaml.compose(text))
            except UnicodeDecodeError as error:
                raise BoneAgeError(f"{file}: it is not UTF-8 ({error.reason}).") from error
            except yaml.MarkedYAMLError as error:
                line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
                tab = " Indent with spaces, not tabs." if "\\t" in str(error.problem) else ""
                raise BoneAgeError(f"{file}{line}: {error.problem}.{tab}") from error
            if text.startswith("\ufeff"):
                raise BoneAgeError(
                    f"{file}, line 1: it begins with a byte order mark, behind which Hydra reads no\n"
                    "package. Save it as UTF-8 without one."
                )
            if name.parts[0] == "experiment" and not _GLOBAL.search(text):
                raise BoneAgeError(
                    f"{file}, line 1: without its package an experiment's settings are used nowhere.\n"
                    "Let the file begin with the line\n  # @package _global_"
                )


# as Hydra finds it: among the comments that a file begins with
_GLOBAL = re.compile(
    r"\A(?:[^\S\n]*(?:#.*)?\n)*[^\S\n]*#[^\S\n]*@package[^\S\n]+_global_[^\S\n]*$", re.MULTILINE
)


def _check_keys(file: Path, node: yaml.Node | None) -> None:
    """Raise `BoneAgeError` for a decimal comma: `{lr: 0,001}` has a key 001 without a value."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:int" and value.value == "":
                raise BoneAgeError(
                    f"{file}, line {key.start_mark.line + 1}: {key.value} stands where an option's name "
                    "must.\nA decimal is written with a point: 0.001."
                )
            _check_keys(file, value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _check_keys(file, value)


def check_config_choices(arguments: list[str]) -> None:
    """Raise `BoneAgeError` for a group of the configuration that is set to no name, on which Hydra fails.

    Several names of a group of which a run has one would be merged into a mixture of them.
    """
    for argument in arguments:
        group, equals, value = argument.lstrip("+").partition("=")
        wrong = (NoneType, int, float, list) if group in ONE_OF else (NoneType, int, float)
        with suppress(yaml.YAMLError):  # Hydra's own grammar: it says what is wrong
            nameless = equals and isinstance(yaml.safe_load(value), wrong)
            if nameless and (there := group_choices(group, arguments)):
                raise BoneAgeError(f"{argument}: choose one of {', '.join(there)}.")


def exit_with(error: BaseException) -> None:
    """Say what is wrong on standard error and exit 2; with HYDRA_FULL_ERROR=1 where it came from, too."""
    if os.environ.get("HYDRA_FULL_ERROR", "0") != "0":
        traceback.print_exception(error)
    # a loader process hands its errors over with its own traceback before them
    message = str(error).rpartition("BoneAgeError: ")[2].strip()
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
