"""Jinja environment and number formats."""

import base64
import json
from collections.abc import Sequence
from functools import partial
from io import BytesIO
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

Table = list[list[str]]  # the first row is the header


def render(template: str, **content: Any) -> str:
    """Render `templates/<template>` as an HTML document."""
    return environment("boneage_pl.evaluation", escaped=True).get_template(template).render(**content)


def environment(package: str, *, escaped: bool) -> Environment:
    """Return the Jinja environment of a package's templates, with HTML escaping or without."""
    jinja = Environment(
        loader=PackageLoader(package),
        autoescape=escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=not escaped,
    )
    jinja.filters |= {
        "interval": with_interval,
        "cell": _cell,
        "number": number,
        "share": percent,
        "base64": _base64,
        "markdown": partial(format_table, markdown=True),
        "json": partial(json.dumps, indent=1),
    }
    return jinja


def format_table(table: Sequence[Sequence[str]], *, markdown: bool = False) -> str:
    """Format a table for a terminal or in Markdown; the first row is the header."""
    if markdown:
        head, *body = ([cell.replace("|", "\\|") for cell in row] for row in table)
        return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in table)
    return "\n".join(lines)


def figure_to_png(figure: Figure, dpi: int = 150) -> bytes:
    """Return a figure as PNG bytes."""
    file = BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    return file.getvalue()


def with_interval(value: dict[str, Any] | None, digits: int = 2, sign: str = "", unit: str = "") -> str:
    """Format a value with its interval, "5.59 (5.31 to 5.88)"; "–" if it is missing."""
    if value is None or value["value"] is None:
        return "–"
    form = f"{sign}z.{digits}f"  # z: no -0.00
    text = f"{value['value']:{form}}{unit}"
    if value["low"] is None or value["high"] is None:
        return text
    return f"{text} ({value['low']:{form}} to {value['high']:{form}})"


def _cell(text: str) -> Markup:
    """Mark up the text of `with_interval` so that a narrow cell can wrap before the interval."""
    value, _, interval = text.partition(" (")
    return Markup('{}<span class="ci"> ({}</span>').format(value, interval) if interval else escape(value)


def number(value: dict[str, Any], digits: int = 2, sign: str = "") -> str:
    """Format a value without its interval: "5.59"."""
    return "–" if value["value"] is None else f"{value['value']:{sign}.{digits}f}"


def percent(value: dict[str, Any], digits: int = 1, *, alone: bool = False) -> str:
    """Format a fraction in percent, with its interval or alone."""
    percent = {key: None if part is None else 100 * part for key, part in value.items()}
    return with_interval({**percent, "low": None} if alone else percent, digits, unit=" %")


def _base64(image: bytes) -> str:
    return base64.b64encode(image).decode()
