"""Build what a configuration names, and say in plain words what its constructor refuses.

Constructors are given plain lists and dictionaries: an optimiser's and a scheduler's go into checkpoints.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import wraps
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig

from boneage_pl.errors import BoneageError


def built(node: DictConfig, name: str, **rest: Any) -> Any:
    """Return the object that a node describes, or a table of such objects.

    Args:
        node: with a `_target_`, or with such nodes in it.
        name: where it stands in the configuration.
        rest: options that its caller adds.

    Raises:
        BoneageError: its constructor refuses.
    """
    with _in_our_words(name):
        return instantiate(node, _convert_="all", **rest)


def partial_of(node: DictConfig, name: str) -> Callable[..., Any]:
    """Return the node's target with its options, to be called with the rest.

    Args:
        node: with a `_target_`.
        name: where it stands in the configuration.

    Raises:
        BoneageError: the target takes no such option; Hydra sees that only in what it calls itself. The
            target itself, where it refuses when it is called.
    """
    with _in_our_words(name):
        made = instantiate(node, _partial_=True, _convert_="all")
    known = inspect.signature(made.func).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in known.values())
    for key in () if takes_any else made.keywords:
        if key not in known:
            near = get_close_matches(key, known, 1)
            hint = f" Did you mean {name}.{near[0]}?" if near else ""
            raise BoneageError(f"{name}.{key}: {made.func.__qualname__} takes no such option.{hint}")

    @wraps(made.func)
    def make(*arguments: Any, **rest: Any) -> Any:
        with _in_our_words(f"{name} ({made.func.__qualname__})"):
            return made(*arguments, **rest)

    return make


@contextmanager
def _in_our_words(name: str) -> Iterator[None]:
    try:
        yield
    except BoneageError:
        raise
    except Exception as raised:  # a constructor may refuse with any error
        # Hydra wraps what a constructor raises, and has a text of its own for a target that is not there
        error = (
            raised.__cause__ if isinstance(raised, InstantiationException) and raised.__cause__ else raised
        )
        if isinstance(error, BoneageError):
            raise error from raised
        what = str(error) or type(error).__name__
        raise BoneageError(f"{name} cannot be made: {what}\n(HYDRA_FULL_ERROR=1 shows where.)") from raised
