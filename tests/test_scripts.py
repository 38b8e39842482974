"""The scripts behind the results pages and the speed table use what there is."""

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(path for folder in ("benchmarks", "experiments") for path in (ROOT / folder).glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_script_imports(script: Path):
    module = importlib.import_module(f"{script.parent.name}.{script.stem}")
    assert module.__doc__
