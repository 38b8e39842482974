"""Comparison of runs as Markdown."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jinja2 import FileSystemLoader, StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from boneage_pl.errors import BoneAgeError
from boneage_pl.evaluation.comparison import Table, config_differences, paired_tests, results_table
from boneage_pl.evaluation.figures import learning_curves
from boneage_pl.evaluation.reference_results import (
    BEST_PUBLISHED,
    FAILURE_NOTE,
    PUBLISHED_ON_TEST,
    published_curves,
    published_stages,
)
from boneage_pl.evaluation.run_results import RunResults
from boneage_pl.evaluation.templating import environment, figure_to_png, with_interval

DPI = 100  # of pictures that stand in a text


def write_markdown(runs: list[RunResults], template: Path | None, target: Path) -> str:
    """Return the page, and write its pictures beside `target`.

    Args:
        template: a Jinja text; `None`: the package's, which has everything. It is given `runs`,
            `RunResults`s by name; `results_table(runs)`, `config_differences(runs)` and `paired_tests(runs)`,
            tables of those; `rows(head, rows)`, a table of your own; `curves(file, runs, published)`, a
            figure that is written beside the page, with the stages `published` or else those that the runs
            reproduce; `numbers(file)`, a JSON file beside the template; `published`, the published curves by
            stage, epoch → (train, validation), `best_published`, `published_on_test` and `published_failure`;
            and the filter `interval`.

    Raises:
        BoneAgeError: the template cannot be read, or names what is not there.
    """
    pictures: dict[str, bytes] = {}

    def curves(file: str, chosen: Iterable[RunResults], published: Iterable[str] | None = None) -> str:
        chosen = list(chosen)
        stages = published_stages(run.experiment for run in chosen) if published is None else published
        figure = learning_curves({run.name: run.history.rows for run in chosen}, stages)
        pictures[Path(file).name] = figure_to_png(figure, DPI)
        return f"![Training and validation error by epoch]({Path(file).name})"

    def numbers(file: str) -> Any:
        return json.loads(((template or target).parent / file).read_text(encoding="utf-8"))

    try:
        page = _jinja_helpers(template).get_template(template.name if template else "compare.md")
        text = page.render(
            runs={run.name: run for run in runs},
            results=lambda chosen: _markdown_table(results_table(chosen)),
            differences=lambda chosen: _markdown_table(config_differences(list(chosen))),
            tests=lambda chosen: _markdown_table(paired_tests(chosen)),
            rows=lambda head, rows: _markdown_table([head, *rows]),
            curves=curves,
            picture=f"{target.stem}_curves.png",
            numbers=numbers,
            published=published_curves(),
            best_published=BEST_PUBLISHED,
            published_on_test=dict(zip(("value", "low", "high"), PUBLISHED_ON_TEST, strict=True)),
            published_failure=FAILURE_NOTE,
        )
    except (TemplateError, OSError, ValueError, TypeError, LookupError) as error:
        where = f", line {line}" if (line := getattr(error, "lineno", None)) else ""
        raise BoneAgeError(
            f"template={template}{where}: {type(error).__name__}: {error}\n"
            f"The runs here are {', '.join(run.name for run in runs)}."
        ) from error
    for name, picture in pictures.items():
        (target.parent / name).write_bytes(picture)
    return text


def _jinja_helpers(template: Path | None) -> Any:
    if template is None:
        return environment("boneage_pl.evaluation", escaped=False)
    sandbox = ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(template.parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    sandbox.filters["interval"] = with_interval
    return sandbox


def _markdown_table(rows: Table) -> str:
    """Return a table in Markdown; nothing of one that has only its head."""
    if len(rows) < 2:
        return ""
    head, *body = ([str(cell).replace("|", "\\|") for cell in row] for row in rows)
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
