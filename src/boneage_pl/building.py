"""Build what a configuration names and its caller completes."""

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from boneage_pl.errors import BoneageError


def partial_of(node: DictConfig, name: str) -> Callable[..., Any]:
    """Return the node's target with its options, to be called with the rest.

    Args:
        node: with a `_target_`.
        name: where it stands in the configuration.

    Raises:
        BoneageError: the target takes no such option; Hydra sees that only in what it calls itself.
    """
    made = instantiate(node, _partial_=True)
    known = inspect.signature(made.func).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in known.values())
    for key in () if takes_any else made.keywords:
        if key not in known:
            near = get_close_matches(key, known, 1)
            hint = f" Did you mean {name}.{near[0]}?" if near else ""
            raise BoneageError(f"{name}.{key}: {made.func.__qualname__} takes no such option.{hint}")
    return made
