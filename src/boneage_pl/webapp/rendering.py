"""Render predictions as HTML and CSV."""

import base64
import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO, StringIO
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from boneage_pl.data.images.resize import Pixels
from boneage_pl.evaluation.templating import environment
from boneage_pl.prediction.gradcam import colorize
from boneage_pl.prediction.growth_reference import SOURCE, skeletal_age_sd
from boneage_pl.prediction.output import COLUMNS, prediction_cells
from boneage_pl.prediction.types import QUALITY_FLAGS, Prediction, PredictionResult, format_years_months
from boneage_pl.webapp.service import PredictionService, SessionImage

WIDTH = 640
_LEFT, _RIGHT = 22, 22
_OLDEST = 228  # months, 19 years: the range of the atlas and of the RSNA data


@dataclass(frozen=True)
class Band:
    """A range of ages on the axis, in drawing units."""

    start: float
    width: float


@dataclass(frozen=True)
class Axis:
    """Horizontal axis of ages from 0 to 19 years, or to `oldest` if that is more.

    Args:
        oldest: largest age that must fit, months.
    """

    oldest: float = _OLDEST

    @property
    def width(self) -> int:
        """Width of the drawing."""
        return WIDTH

    def at(self, months: float) -> float:
        """Return the x coordinate of an age in months."""
        end = max(self.oldest, _OLDEST)
        share = min(max(months / end, 0.0), 1.0)
        return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 1)

    def band(self, low: float, high: float) -> Band:
        """Return the band of a range of ages in months."""
        return Band(self.at(low), round(self.at(high) - self.at(low), 1))

    @property
    def ticks(self) -> list[tuple[float, int]]:
        """Coordinate and label of each tick, at every second year or fewer."""
        years = int(max(self.oldest, _OLDEST) // 12)
        return [(self.at(12 * year), year) for year in range(0, years + 1, max(2, years // 9))]


_THUMB = 72  # pixels
_COMMON = {"flags": QUALITY_FLAGS, "years": format_years_months, "source": SOURCE}


def render_prediction(
    service: PredictionService, session: SessionImage, male: bool | None, age: float | None
) -> str:
    """Render the predictions of one image.

    Args:
        service: the service that made them.
        session: the image and its predictions.
        male: the chosen sex; `None` for both.
        age: chronological age in months; `None` if unknown.
    """
    chosen = [r for r in session.results if male in (None, r.prediction.male) or r.prediction.error]
    results = [_prediction_context(service, session, result, age) for result in chosen]
    resize_spec = service.model.members[0].resize_spec
    part = resize_spec.visible_box(*session.size) if session.size != (0, 0) else None
    return _render(
        "prediction.html", session=session, results=results, part=part, level=service.level, age=age
    )


def table_row(service: PredictionService, result: PredictionResult) -> dict[str, Any]:
    """Return a row of the table: the prediction and a thumbnail."""
    predicted = result.prediction.months is not None
    thumbnail = encode_png(_thumbnail(service.pixels(result))) if predicted else ""
    return {"prediction": result.prediction, "thumbnail": thumbnail}


def render_table(
    service: PredictionService, rows: Sequence[dict[str, Any]], rejected: Sequence[tuple[str, str]]
) -> str:
    """Render a table of predictions.

    Args:
        service: the service that made them.
        rows: from `table_row`.
        rejected: name and reason for each file without a prediction.
    """
    failed = [{"prediction": Prediction(name, error=why), "thumbnail": ""} for name, why in rejected]
    rows = [*rows, *failed]
    predictions = [row["prediction"] for row in rows]
    return _render(
        "table.html", rows=rows, level=service.level, csv=_csv(predictions), predictions=predictions
    )


def render_header(model: str, *, synthetic: bool) -> str:
    """Render the header: the model, and that it is not a medical device."""
    return _render("head.html", model=model, synthetic=synthetic)


def render_message(text: str, kind: str = "problem") -> str:
    """Render a paragraph of plain text."""
    return str(Markup('<p class="{}">{}</p>').format(kind, text))  # str, so that it concatenates


def _prediction_context(
    service: PredictionService, session: SessionImage, result: PredictionResult, age: float | None
) -> dict[str, Any]:
    """Return the template's variables for a prediction."""
    prediction = result.prediction
    if prediction.months is None:
        return {"prediction": prediction}
    assert prediction.male is not None
    sd = skeletal_age_sd(age, male=prediction.male) if age is not None else None
    image, heatmap = service.cached_grad_cam(session, result)
    return {
        "prediction": prediction,
        "axis": Axis(max(prediction.upper or prediction.months, age or 0)),
        "difference": None if age is None else prediction.months - age,
        "sd": sd,
        "input": encode_png(image),
        "side": len(image),
        "heatmap": "" if heatmap is None else encode_png(colorize(heatmap)),
        "cells": None if heatmap is None else heatmap.shape,
    }


def _thumbnail(pixels: Pixels) -> Pixels:
    image = Image.fromarray(pixels)
    image.thumbnail((_THUMB, _THUMB))
    return np.asarray(image)


def encode_png(pixels: Pixels) -> str:
    """Return an image, uint8 [h, w] or RGBA [h, w, 4], as a PNG file in Base64."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _csv(predictions: Sequence[Prediction]) -> str:
    file = StringIO()
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(COLUMNS)
    rows.writerows(
        [_escape_cell(cell) for cell in prediction_cells(prediction)] for prediction in predictions
    )
    return base64.b64encode(file.getvalue().encode()).decode()


def _escape_cell(cell: str) -> str:
    """Escape a cell that a spreadsheet would evaluate as a formula: file names are untrusted."""
    return f"'{cell}" if re.match(r"[=+@\t\r]|-(?![\d.]+$)", cell) else cell


def _render(template: str, **content: Any) -> str:
    return environment("boneage_pl.webapp", escaped=True).get_template(template).render(**_COMMON, **content)
