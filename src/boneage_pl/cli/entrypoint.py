"""Run a command under Hydra: exit codes, errors without a traceback."""

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue

from boneage_pl.cli import CONF_DIR
from boneage_pl.cli.help import config_dirs, group_choices, suggest_overrides
from boneage_pl.cli.overrides import check_paths, expand_home, expand_home_in_override
from boneage_pl.errors import BoneAgeError

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
            return task(config)

    try:
        with exit_on_error(interrupted):
            sys.argv[1:] = map(expand_home_in_override, sys.argv[1:])
            check_paths(sys.argv[1:])
            check_no_shadowed_configs(sys.argv[1:])
            check_config_choices(sys.argv[1:])
            run()
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
    except KeyboardInterrupt:
        print(f"\n{interrupted}", file=sys.stderr)
        sys.exit(130)


def check_no_shadowed_configs(arguments: list[str]) -> None:
    """Raise `BoneAgeError` for a file of a `--config-dir` that Hydra would pass over for one of ours."""
    for folder in config_dirs(arguments):
        for file in sorted(folder.rglob("*.yaml")):
            name = file.relative_to(folder)
            if (CONF_DIR / name).exists():
                raise BoneAgeError(
                    f"{file} has the name of one of the project's own files, which would be used instead.\n"
                    f"Give it another name, and choose it by that: {name.parent.name or 'config'}=<name>."
                )


def check_config_choices(arguments: list[str]) -> None:
    """Raise `BoneAgeError` for a group of the configuration that is set to nothing, on which Hydra fails."""
    for argument in arguments:
        group, _, value = argument.lstrip("+").partition("=")
        if "=" in argument and value in ("null", "") and (there := group_choices(group, arguments)):
            raise BoneAgeError(f"{argument}: choose one of {', '.join(there)}.")


def exit_with(error: BaseException) -> None:
    """Say what is wrong on standard error and exit 2; with HYDRA_FULL_ERROR=1 where it came from, too."""
    if os.environ.get("HYDRA_FULL_ERROR", "0") != "0":
        traceback.print_exception(error)
    # a loader process hands its errors over with its own traceback before them
    message = str(error).rpartition("BoneAgeError: ")[2].strip()
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
