"""Which `_target_`s of a stored configuration may be instantiated."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from boneage_pl.cli import CONF_DIR
from boneage_pl.errors import BoneAgeError

# Classes that a run may have been given beside those of conf/, by their place in the packages' public names.
_LIBRARIES = re.compile(
    r"(lightning\.pytorch\.(callbacks|strategies)|torch\.optim|torch\.optim\.lr_scheduler|torch\.nn"
    r"|torchvision\.transforms\.v2)\.[A-Z]\w*"
)


def check_trusted_targets(config: Any, repeated: dict[str, Any]) -> None:
    """Refuse a run's configuration that would build what neither the project nor this command names.

    A run folder may be untrusted, and a `_target_` can be any function of any installed package.

    Args:
        config: the configuration as plain values.
        repeated: options that the user has typed; a `_target_` among them is theirs.

    Raises:
        BoneAgeError: naming the first such object, and how to accept it.
    """
    for key, target in iter_targets(config):
        if repeated.get(key) != target and not is_trusted(target):
            raise BoneAgeError(
                f"the run's configuration names {key}={target}, which is not this project's own.\n"
                f"If it is yours, repeat it: add {key}={target} to the command."
            )


def is_trusted(target: str) -> bool:
    """Whether conf/ names `target`, or it is a class of this project or of the libraries' trainable kinds."""
    return target in _configured_targets() or bool(_LIBRARIES.fullmatch(target)) or _is_project_class(target)


def _configured_targets() -> set[str]:
    lines = (
        line.strip() for file in CONF_DIR.rglob("*.yaml") for line in file.read_text("utf-8").splitlines()
    )
    return {
        line.removeprefix("_target_:").split("#")[0].strip() for line in lines if line.startswith("_target_:")
    }


def _is_project_class(target: str) -> bool:
    # read, not imported: `boneage_pl.x.os.system` is a name that Python would find
    package, *modules, name = target.split(".") if target.count(".") > 1 else ("", "")
    file = Path(__file__).parents[1].joinpath(*modules).with_suffix(".py")
    if package != "boneage_pl" or not all(m.isidentifier() for m in modules) or not file.is_file():
        return False
    tree = ast.parse(file.read_text("utf-8"))
    return any(isinstance(node, ast.ClassDef) and node.name == name for node in tree.body)


def iter_targets(node: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """Yield the place and the name of each object that a configuration, as plain values, would build."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        path = f"{at}.{key}" if at else str(key)
        if key == "_target_":
            yield path, str(value)
        else:
            yield from iter_targets(value, path)
