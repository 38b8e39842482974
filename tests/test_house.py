"""The house: no room knows one above it, the model room alone knows a network, every choice composes."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from boneage_pl.cli import CONF_DIR

SOURCE = Path(__file__).parents[1] / "src" / "boneage_pl"
PAGE = Path(__file__).parents[1] / "docs" / "ARCHITECTURE.md"
# From the ground up. What lies loose at the top are the doors, above all rooms; errors.py is the ground.
ROOMS = ["utils", "cli", "data", "fetch", "model", "training", "reading", "report", "deploy", "page"]
GROUND, DOORS = -1, len(ROOMS)


MODULES = sorted(SOURCE.rglob("*.py"))


def floor_of(module: str) -> int:
    """The floor of boneage_pl.<room>.…, boneage_pl.<door> or boneage_pl.errors."""
    first = module.split(".")[1] if "." in module else ""
    if first in ROOMS:
        return ROOMS.index(first)
    return GROUND if first in ("errors", "__version__") else DOORS  # the package itself is a door too


def imports_of(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: a relative import"
            assert node.module
            # `from boneage_pl.data import originals` names a module too
            yield from (f"{node.module}.{name.name}" for name in node.names)


def name_of(file: Path) -> str:
    parts = file.relative_to(SOURCE).with_suffix("").parts
    return ".".join(["boneage_pl", *(part for part in parts if part != "__init__")])


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_no_room_knows_one_above_it(file: Path):
    for imported in imports_of(file):
        if imported.startswith("boneage_pl."):
            assert floor_of(imported) <= floor_of(name_of(file)), f"{name_of(file)} imports {imported}"


def test_the_rooms_are_those_that_there_are():
    assert sorted(folder.name for folder in SOURCE.iterdir() if (folder / "__init__.py").exists()) == sorted(
        ROOMS
    )
    for room in ROOMS:
        assert ast.get_docstring(ast.parse((SOURCE / room / "__init__.py").read_text(encoding="utf-8")))


def test_a_room_above_would_be_seen(tmp_path: Path):
    file = tmp_path / "x.py"
    file.write_text("def f():\n    from boneage_pl.report import page\n    import boneage_pl.training.runs\n")
    assert [floor_of(name) for name in imports_of(file)] == [ROOMS.index("report"), ROOMS.index("training")]


def test_only_the_model_room_knows_a_network():
    words = re.compile(r"backbone|inception|transform_input|Mixed_\d|\b107\b", re.IGNORECASE)
    named = [
        f"{name_of(file)}: {line.strip()}"
        for file in MODULES
        if not file.is_relative_to(SOURCE / "model")
        for line in file.read_text(encoding="utf-8").splitlines()
        if words.search(line)
    ]
    assert named == []


CHOICES = sorted(CONF_DIR.rglob("*.yaml"))


@pytest.mark.parametrize("file", CHOICES, ids=lambda file: str(file.relative_to(CONF_DIR)))
def test_every_choice_composes(file: Path):
    group, name = file.parent.relative_to(CONF_DIR).as_posix(), file.stem
    top, overrides = (name, []) if group == "." else ("config", [f"{group}={name}"])
    if file.is_relative_to(CONF_DIR / "experiment"):
        overrides = [f"+experiment={file.relative_to(CONF_DIR / 'experiment').with_suffix('')}"]
    elif top == "config":
        overrides.append("+experiment=v1")
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = compose(top, overrides=overrides, return_hydra_config=group.startswith("hydra"))
    ours = OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])
    assert OmegaConf.to_container(ours, resolve=True)
    assert re.match(r"# (@package .*\n# )?[A-Z]", file.read_text(encoding="utf-8")), "what it is, first"


def test_every_path_that_the_page_names_is_there():
    """With docs/ARCHITECTURE.md alone each thing is found in one step."""
    paths = re.findall(r"`((?:src|conf|tests|docs|benchmarks)/[\w./-]+)`", PAGE.read_text("utf-8"))
    named = {path for path in paths if "NAME" not in path}
    assert len(named) > 20
    assert [path for path in sorted(named) if not (PAGE.parents[1] / path).exists()] == []
    for room in ROOMS:
        assert f"`{room}/`" in PAGE.read_text("utf-8")
