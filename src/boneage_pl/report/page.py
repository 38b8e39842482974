"""report.html: one file that opens from the disk, and that a reader understands without knowing the code."""

import base64
from collections.abc import Iterable
from html import escape
from io import BytesIO
from typing import Any

from matplotlib.figure import Figure

_STYLE = """
:root { --ink: #1d2733; --quiet: #5b6b7b; --line: #d9e0e7; --tint: #f4f7fa; --mark: #2f6db5; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 56rem; color: var(--ink); background: #fff;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .3rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; padding-top: .8rem; border-top: 1px solid var(--line); }
p { margin: .5rem 0; } .quiet { color: var(--quiet); font-size: .9rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .7rem;
  margin: 1.2rem 0; }
.card { background: var(--tint); border-radius: .5rem; padding: .8rem 1rem; }
.card b { display: block; font-size: 1.5rem; } .card span { color: var(--quiet); font-size: .85rem; }
.caveats { border-left: 4px solid #d98e04; background: #fff8ea; margin: 1rem 0;
  padding: .6rem 1rem .6rem 2rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; }
figcaption { color: var(--quiet); font-size: .9rem; }
pre { background: var(--tint); padding: .8rem; overflow-x: auto; font-size: .8rem; border-radius: .5rem; }
summary { cursor: pointer; color: var(--mark); }
@media (max-width: 40rem) { table { font-size: .78rem; } th, td { padding: .25rem .3rem; }
  td.n, th.n { white-space: normal; } }
@media print { body { max-width: none; font-size: 11pt; padding: 0; } h2 { break-after: avoid; }
  figure, tr, .card { break-inside: avoid; } details { display: none; } }
"""


def page(title: str, lead: str, parts: Iterable[str]) -> str:
    """Return a whole HTML document; `lead` and `parts` are HTML, `title` is text."""
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n{lead}\n{body}\n</body>\n</html>\n"
    )


def section(heading: str, *parts: str) -> str:
    """Return parts (HTML) under a heading (text)."""
    return f"<h2>{escape(heading)}</h2>\n" + "\n".join(parts)


def text(words: str, kind: str = "") -> str:
    """Return a paragraph of text."""
    return f'<p class="{kind}">{escape(words)}</p>' if kind else f"<p>{escape(words)}</p>"


def cards(values: Iterable[tuple[str, str]]) -> str:
    """Return big numbers, each with what it is."""
    shown = "".join(
        f'<div class="card"><b>{escape(v)}</b><span>{escape(what)}</span></div>' for v, what in values
    )
    return f'<div class="cards">{shown}</div>'


def listed(items: Iterable[str], kind: str = "") -> str:
    """Return a list of texts."""
    return f'<ul class="{kind}">' + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def table(head: list[str], rows: Iterable[list[str]], numbers: Iterable[int] = ()) -> str:
    """Return a table of texts; columns in `numbers` stand to the right."""
    right = set(numbers)

    def line(cells: list[str], tag: str) -> str:
        marked = (
            f"<{tag}{' class=n' if at in right else ''}>{escape(c)}</{tag}>" for at, c in enumerate(cells)
        )
        return "<tr>" + "".join(marked) + "</tr>"

    body = "\n".join(line(row, "td") for row in rows)
    return (
        f'<div class="wide"><table>\n<thead>{line(head, "th")}</thead>\n<tbody>{body}</tbody></table></div>'
    )


def png(figure: Figure, dpi: int = 150) -> bytes:
    """Return a figure as a PNG file's bytes."""
    file = BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    return file.getvalue()


def picture(image: bytes, caption: str) -> str:
    """Return a PNG inside the page."""
    data = base64.b64encode(image).decode()
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def folded(heading: str, content: str) -> str:
    """Return preformatted text behind a heading that opens it."""
    return f"<details><summary>{escape(heading)}</summary><pre>{escape(content)}</pre></details>"


def with_interval(value: dict[str, Any], digits: int = 2, sign: str = "") -> str:
    """Return "5.59 (5.31 to 5.88)"."""
    if value["value"] is None:
        return "not a number"
    shown = f"{value['value']:{sign}.{digits}f}"
    if value["low"] is None:
        return shown
    return f"{shown} ({value['low']:{sign}.{digits}f} to {value['high']:{sign}.{digits}f})"
