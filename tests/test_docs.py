"""What the README and the docs point to exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_and_links_exist(page: Path):
    text = page.read_text(encoding="utf-8")
    paths = {
        ROOT / path
        for path in re.findall(r"`((?:src|conf|tests|docs|benchmarks|experiments)/[\w./-]+)`", text)
    }
    links = {page.parent / link for link in re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", text)}
    wanted = {path for path in paths | links if "NAME" not in path.name}
    assert [path for path in sorted(wanted) if not path.exists()] == []
