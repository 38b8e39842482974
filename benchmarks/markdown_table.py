"""A table in Markdown, to go into docs/."""

from collections.abc import Iterable, Sequence


def show(head: Sequence[str], *rows: Iterable[str]) -> None:
    """Print a table in Markdown."""
    for row in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(row)} |")
