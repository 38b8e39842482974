"""Instantiate configuration nodes, with errors that name the option.

Constructors are given plain lists and dictionaries: an optimizer's and a scheduler's go into checkpoints.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import wraps
from typing import Any

import hydra.utils
from hydra.errors import InstantiationException
from omegaconf import DictConfig
from pydantic import ValidationError

from boneage_pl.cli.checks import reason
from boneage_pl.errors import BoneAgeError


def instantiate(node: DictConfig, name: str, **rest: Any) -> Any:
    """Return the object that a node describes, or a table of such objects.

    Args:
        node: with a `_target_`, or with such nodes in it.
        name: where it stands in the configuration.
        rest: options that its caller adds.

    Raises:
        BoneAgeError: its constructor refuses.
    """
    with translate_errors(name):
        return hydra.utils.instantiate(node, _convert_="all", **rest)


def instantiate_partial(node: DictConfig, name: str) -> Callable[..., Any]:
    """Return the node's target with its options, to be called with the rest.

    Args:
        node: with a `_target_`.
        name: where it stands in the configuration.

    Raises:
        BoneAgeError: the target takes no such option; Hydra sees that only in what it calls itself. The
            target itself, where it refuses when it is called.
    """
    with translate_errors(name):
        made = hydra.utils.instantiate(node, _partial_=True, _convert_="all")
    known = inspect.signature(made.func).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in known.values())
    for key in () if takes_any else made.keywords:
        if key not in known:
            near = get_close_matches(key, known, 1)
            hint = f" Did you mean {name}.{near[0]}?" if near else ""
            raise BoneAgeError(f"{name}.{key}: {made.func.__qualname__} takes no such option.{hint}")

    @wraps(made.func)
    def make(*arguments: Any, **rest: Any) -> Any:
        with translate_errors(f"{name} ({made.func.__qualname__})"):
            return made(*arguments, **rest)

    return make


@contextmanager
def translate_errors(name: str) -> Iterator[None]:
    """Raise what a constructor raises as a `BoneAgeError` that names the option."""
    try:
        yield
    except BoneAgeError:
        raise
    except Exception as raised:  # a constructor may refuse with any error
        # Hydra wraps what a constructor raises, and has a text of its own for a target that is not there
        error = (
            raised.__cause__ if isinstance(raised, InstantiationException) and raised.__cause__ else raised
        )
        if isinstance(error, BoneAgeError):
            raise error from raised
        if error is not raised:
            _, found, key = str(raised).rpartition("full_key: ")
            name = key if found else name
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False)[0]
            option = ".".join(map(str, [name, *first["loc"]]))
            value = "" if first["type"].startswith(("missing", "unexpected")) else f"={first['input']}"
            raise BoneAgeError(f"{option}{value}: {reason(first)}.") from raised
        what = str(error) or type(error).__name__
        raise BoneAgeError(f"{name} cannot be made: {what}\n(HYDRA_FULL_ERROR=1 shows where.)") from raised
