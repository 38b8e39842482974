"""Instantiate configuration nodes, with errors that name the option.

Constructors get plain lists and dictionaries, since those of optimizers and schedulers go into checkpoints.
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
    """Instantiate a node, or a table of nodes.

    Args:
        node: with a `_target_`, or containing such nodes.
        name: its key in the configuration, for errors.
        rest: further arguments.

    Raises:
        BoneAgeError: the constructor raises.
    """
    with translate_errors(name):
        return hydra.utils.instantiate(node, _convert_="all", **rest)


def instantiate_partial(node: DictConfig, name: str) -> Callable[..., Any]:
    """Return a partial of the node's target with its options.

    Args:
        node: with a `_target_`.
        name: its key in the configuration, for errors.

    Raises:
        BoneAgeError: the target has no such option, or, when called, raises.
    """
    with translate_errors(name):
        partial = hydra.utils.instantiate(node, _partial_=True, _convert_="all")
    known = inspect.signature(partial.func).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in known.values())
    for key in () if takes_any else partial.keywords:
        if key not in known:
            near = get_close_matches(str(key), known, 1)
            hint = f" Did you mean {name}.{near[0]}?" if near else ""
            raise BoneAgeError(f"{name}.{key}: {partial.func.__qualname__} has no such option.{hint}")

    @wraps(partial.func)
    def make(*arguments: Any, **rest: Any) -> Any:
        with translate_errors(f"{name} ({partial.func.__qualname__})"):
            return partial(*arguments, **rest)

    return make


@contextmanager
def translate_errors(name: str) -> Iterator[None]:
    """Turn exceptions of a constructor into a `BoneAgeError` with the option."""
    try:
        yield
    except BoneAgeError:
        raise
    except Exception as raised:  # of any type
        # Hydra wraps exceptions of constructors, and raises its own for a missing target
        error = (
            raised.__cause__ if isinstance(raised, InstantiationException) and raised.__cause__ else raised
        )
        if isinstance(error, BoneAgeError):
            raise error from raised
        if error is not raised:
            _, has_key, key = str(raised).rpartition("full_key: ")
            name = key if has_key else name
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False)[0]
            option = ".".join(map(str, [name, *first["loc"]]))
            value = "" if first["type"].startswith(("missing", "unexpected")) else f"={first['input']}"
            raise BoneAgeError(f"{option}{value}: {reason(first)}.") from raised
        message = str(error) or type(error).__name__
        raise BoneAgeError(
            f"{name} cannot be created: {message}\n(Set HYDRA_FULL_ERROR=1 for a traceback.)"
        ) from raised
