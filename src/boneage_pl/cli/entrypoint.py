"""Run a command under Hydra: exit codes, errors without a traceback."""

import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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

# configuration groups with exactly one choice
ONE_OF = ("data", "model", "loss", "sampler", "optimizer", "scheduler", "trainer")
INTERRUPTED_MESSAGE = "Interrupted. Run the same command to continue."


def run_command(
    task: Callable[[DictConfig], Any], config_name: str, interrupted: str = "interrupted"
) -> None:
    """Compose `conf/<config_name>.yaml` with the command line's overrides and run `task` with it.

    `BoneAgeError` and errors of Hydra and of configured constructors exit 2 with a message on standard error.
    Ctrl-C prints `interrupted` and exits 130.
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
    except ValueError as error:  # Hydra's, for exclusive flags such as --multirun --cfg
        if begun:
            raise
        exit_with(BoneAgeError(str(error)))
    except SystemExit as stop:  # Hydra exits with 1 for invalid overrides
        if not begun and stop.code == 1:
            for hint in suggest_overrides(sys.argv[1:], config_name):
                print(hint, file=sys.stderr)
        sys.exit(stop.code if begun else stop.code and 2)


@contextmanager
def exit_on_error(interrupted: str = "interrupted") -> Iterator[None]:
    """Turn user errors into a message on standard error and an exit status, see `run_command`."""
    try:
        yield
    except (BoneAgeError, InstantiationException) as raised:
        # Hydra wraps exceptions of constructors; its message has option and reason
        wrapped = isinstance(raised, InstantiationException) and isinstance(raised.__cause__, BoneAgeError)
        exit_with(raised.__cause__ if wrapped and raised.__cause__ else raised)
    except MissingMandatoryValue as missing:
        exit_with(BoneAgeError(f"Missing required option {missing.full_key}= (see --help)."))
    except ConfigAttributeError as missing:  # removed with ~ or by a user's file
        exit_with(BoneAgeError(f"{missing.full_key}: this option is required but was removed."))
    except KeyboardInterrupt:
        print(f"\n{interrupted}", file=sys.stderr)
        sys.exit(130)


def check_config_files(arguments: list[str]) -> None:
    """Raise `BoneAgeError` for a file of a `--config-dir` whose settings would be ignored.

    Hydra ignores a file with the name of one of ours and misplaces an experiment without its package line.
    """
    for folder in config_dirs(arguments):
        for file in sorted(folder.rglob("*.yaml")):
            name = file.relative_to(folder)
            if (CONF_DIR / name).exists():
                raise BoneAgeError(
                    f"{file} has the name of a file of the project, which would be used instead.\n"
                    f"Rename it and choose it by the new name: {name.parent.name or 'config'}=<name>."
                )
            if not (CONF_DIR / name.parts[0]).is_dir():
                continue  # not a configuration group
            try:
                text = file.read_text(encoding="utf-8")
                yaml.compose(text)
            except UnicodeDecodeError as error:
                raise BoneAgeError(f"{file}: not UTF-8 ({error.reason}).") from error
            except yaml.MarkedYAMLError as error:
                line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
                tab = " Indent with spaces, not tabs." if "\\t" in str(error.problem) else ""
                raise BoneAgeError(f"{file}{line}: {error.problem}.{tab}") from error
            if text.startswith("\ufeff"):
                raise BoneAgeError(
                    f"{file}, line 1: byte order mark, which hides the package line from Hydra.\n"
                    "Save the file as UTF-8 without one."
                )
            if name.parts[0] == "experiment" and not _GLOBAL.search(text):
                raise BoneAgeError(
                    f"{file}, line 1: an experiment must begin with the line\n  # @package _global_"
                )


# as in Hydra: among the comments at the beginning of a file
_GLOBAL = re.compile(
    r"\A(?:[^\S\n]*(?:#.*)?\n)*[^\S\n]*#[^\S\n]*@package[^\S\n]+_global_[^\S\n]*$", re.MULTILINE
)


def check_config_choices(arguments: list[str]) -> None:
    """Raise `BoneAgeError` for a configuration group that is not set to a name, on which Hydra fails.

    A list for a group with one choice would be merged.
    """
    for argument in arguments:
        group, equals, value = argument.lstrip("+").partition("=")
        wrong = (NoneType, int, float, list) if group in ONE_OF else (NoneType, int, float)
        with suppress(yaml.YAMLError):  # reported by Hydra
            nameless = equals and isinstance(yaml.safe_load(value), wrong)
            if nameless and (choices := group_choices(group, arguments)):
                raise BoneAgeError(f"{argument}: choose one of {', '.join(choices)}.")


def exit_with(error: BaseException) -> None:
    """Print an error to standard error and exit 2; with HYDRA_FULL_ERROR=1 also a traceback."""
    if os.environ.get("HYDRA_FULL_ERROR", "0") != "0":
        traceback.print_exception(error)
    # errors of a loader process are preceded by its traceback
    message = str(error).rpartition("BoneAgeError: ")[2].strip()
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
