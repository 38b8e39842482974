"""Code, configuration and documentation use the field's terms."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# word to avoid, and the field's term
WORDS = {
    r"pictures?": "image",
    r"told|tells us": "printed, logged",
    r"asked|asks|asking": "predicted, evaluated",
    r"set aside": "held out",
    r"broken off": "interrupted",
    r"by heart": "overfit",
    r"stranger'?s?": "untrusted",
    r"remembers?|remembered": "stored",
    r"answer(s|ed)?": "prediction, response",
    r"knows": "has, stores",
}
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "conf").rglob("*.yaml")]
SOURCES = [
    path
    for folder in ("src", "tests", "benchmarks", "experiments", "examples")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".py", ".html", ".md", ".css", ".js", ".txt", ".ipynb"}
    and path.name != "test_wording.py"
]


@pytest.mark.parametrize("wrong", WORDS)
def test_words_of_the_field(wrong: str):
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in [*PAGES, *SOURCES]
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if re.search(rf"\b({wrong})\b", line, re.IGNORECASE)
    ]
    assert found == [], f"say {WORDS[wrong]}"
