"""Packages import only from lower layers."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "boneage_pl"
# Lowest first; the top-level commands may import from all.
LAYERS = [
    "utils",
    "cli",
    "data",
    "fetch",
    "model",
    "training",
    "prediction",
    "evaluation",
    "deploy",
    "webapp",
]
BASE, COMMANDS = -1, len(LAYERS)
MODULES = sorted(SOURCE.rglob("*.py"))


def layer_of(module: str) -> int:
    """Return the layer of a module."""
    first = module.split(".")[1] if "." in module else ""
    if first in LAYERS:
        return LAYERS.index(first)
    return BASE if first in ("errors", "__version__") else COMMANDS


def imports_of(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: a relative import"
            assert node.module
            # `from boneage_pl.data import split` names a module too
            yield from (f"{node.module}.{name.name}" for name in node.names)


def name_of(file: Path) -> str:
    parts = file.relative_to(SOURCE).with_suffix("").parts
    return ".".join(["boneage_pl", *(part for part in parts if part != "__init__")])


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_module_imports_nothing_above_it(file: Path):
    for imported in imports_of(file):
        if imported.startswith("boneage_pl."):
            assert layer_of(imported) <= layer_of(name_of(file)), f"{name_of(file)} imports {imported}"


def test_layers_are_the_packages():
    assert sorted(file.parent.name for file in SOURCE.glob("*/__init__.py")) == sorted(LAYERS)


def test_imports_inside_functions_count(tmp_path: Path):
    file = tmp_path / "x.py"
    file.write_text(
        "def f():\n    from boneage_pl.evaluation import page\n    import boneage_pl.training.runs\n"
    )
    assert [LAYERS[layer_of(name)] for name in imports_of(file)] == ["evaluation", "training"]
