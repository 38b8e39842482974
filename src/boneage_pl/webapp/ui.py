"""Gradio page."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, wraps
from importlib.resources import files
from itertools import islice
from typing import Any

import gradio as gr

from boneage_pl.errors import BoneAgeError
from boneage_pl.prediction.loading import MISSING_SEX_MESSAGE
from boneage_pl.prediction.types import PredictionResult, format_years_months
from boneage_pl.webapp import model_info, rendering
from boneage_pl.webapp.age_input import parse_age
from boneage_pl.webapp.batch_upload import UploadedFile, unpack_uploads
from boneage_pl.webapp.dropzone import file_dropzone
from boneage_pl.webapp.service import PredictionService, SessionImage
from boneage_pl.webapp.uploads import MAX_AGE_SECONDS, Uploads

log = logging.getLogger(__name__)
_MAX_SESSIONS = 200  # our choice; the image and the heatmaps of one take up to a megabyte
_SEX = {"F": False, "M": True}
_SEX_CHOICES = [("Girl", "F"), ("Boy", "M"), ("Unknown: predict both", "unknown")]
_BATCH_SEX_CHOICES = [
    ("From the files or a table", "table"),
    ("Girls", "F"),
    ("Boys", "M"),
    ("Unknown: predict both", "unknown"),
]
_NO_SEX = "the sex is unknown: choose one above, or add a table with the columns path and sex"
_HELP = (
    "Drop a frontal radiograph of one hand. Sex and age are read from a DICOM file if they are in it. "
    "The file is deleted after prediction."
)
_BATCH_HELP = (
    "Drop several files or a zip archive, optionally with a table (CSV) that has the columns path or id, and "
    "sex. The files are deleted after prediction."
)


@dataclass(frozen=True)
class Limits:
    """Limits of one upload.

    Args:
        bytes: size of all files together.
        images: number of images.
        unpacked: bytes that its zip archives may unpack to.
    """

    bytes: int
    images: int
    unpacked: int


def build_ui(service: PredictionService, uploads: Uploads, limits: Limits) -> gr.Blocks:
    """Return the page.

    Args:
        service: makes the predictions.
        uploads: the folder of uploaded files.
        limits: of one upload.
    """
    with gr.Blocks(title="Bone age", analytics_enabled=False) as page:
        gr.HTML(_header(service), elem_classes="page")
        with gr.Tab("One radiograph"):
            _single_tab(service, uploads)
        with gr.Tab("Several"):
            _batch_tab(service, uploads, limits)
        with gr.Tab("This model") as tab:
            _model_tab(service, tab)
    page.state_session_capacity = _MAX_SESSIONS
    return page


def style() -> str:
    """Return the page's style sheet."""
    return _file("page.css")


def _single_tab(service: PredictionService, uploads: Uploads) -> None:
    session = gr.State(None, time_to_live=MAX_AGE_SECONDS)
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            file = file_dropzone(
                uploads, label="Radiograph: PNG, JPEG, TIFF or DICOM", file_count="single", height=140
            )
            sex = gr.Radio(_SEX_CHOICES, value="unknown", label="Sex of the child")
            age = gr.Textbox(label="Chronological age, if known", placeholder="9 y 2 m, 9.5 y or 110 m")
            with gr.Accordion("Or from dates", open=False):
                birth_date = gr.Textbox(label="Date of birth", placeholder="2014-05-30")
                radiograph_date = gr.Textbox(label="Date of the radiograph", placeholder="2024-01-31")
        with gr.Column(scale=5, min_width=300):
            output = _live_region(rendering.render_message(_HELP, "quiet"))
    entered: list[Any] = [sex, age, birth_date, radiograph_date]

    @_catch_errors
    def show(image: SessionImage | None, sex: str, age: str, birth_date: str, radiograph_date: str) -> str:
        if image is None:
            return rendering.render_message(_HELP, "quiet")
        try:
            months, problem = parse_age(age or "", birth_date or "", radiograph_date or ""), ""
            tag_age = image.tags.age if image.tags else None
            dates = birth_date or radiograph_date
            if tag_age is not None and not dates and age == format_years_months(tag_age):
                months = tag_age  # exact; the field shows whole months
        except BoneAgeError as error:  # the prediction stays visible while an age is being typed
            months, problem = None, rendering.render_message(str(error))
        return problem + rendering.render_prediction(service, image, _SEX.get(sex), months)

    def on_upload(dropped: list[UploadedFile], before: SessionImage | None, *entered: str) -> tuple[Any, ...]:
        if not dropped:
            return before, *entered, None, gr.skip()
        with uploads.release([file.path for file in dropped]):
            if not uploads.contains(dropped[0].path):
                return (
                    None,
                    *entered,
                    None,
                    rendering.render_message("The upload has been deleted: drop it again."),
                )
            try:
                found = service.predict_one(dropped[0].path, dropped[0].name)
            except Exception:
                return None, *entered, None, _unexpected_error()
        if before is not None:  # the fields belong to another image
            entered = ("unknown", "", "", "")
        if found.tags and found.tags.male is not None:
            entered = ("M" if found.tags.male else "F", *entered[1:])
        if found.tags and found.tags.age is not None:
            entered = (entered[0], format_years_months(found.tags.age), "", "")
        return found, *entered, None, show(found, *entered)

    event_options: Any = {"show_progress": "minimal", "concurrency_id": "one", "concurrency_limit": 4}
    event_options["api_visibility"] = "private"
    file.upload(on_upload, [file, session, *entered], [session, *entered, file, output], **event_options)
    changes = [sex.input, *(event for box in entered[1:] for event in (box.submit, box.blur))]
    gr.on(changes, show, [session, *entered], output, trigger_mode="always_last", **event_options)


def _batch_tab(service: PredictionService, uploads: Uploads, limits: Limits) -> None:
    files = file_dropzone(
        uploads, label="Radiographs, a zip archive, a table", file_count="multiple", height=180
    )
    sex = gr.Radio(_BATCH_SEX_CHOICES, value="table", label="Sex of the children")
    button = gr.Button("Predict bone ages", variant="primary")
    table = _live_region(rendering.render_message(_BATCH_HELP, "quiet"))

    @_catch_errors
    def predict_batch(dropped: list[UploadedFile], sex: str, progress: gr.Progress) -> str:
        if not all(uploads.contains(file.path) for file in dropped):
            raise BoneAgeError("Some of the uploads have been deleted: drop them again.")
        with uploads.release([file.path for file in dropped]), uploads.unpack_folder() as folder:
            batch = unpack_uploads(dropped, folder, limits.images, limits.unpacked)
            sexes = {**_SEX, "unknown": "unknown"}.get(sex)
            requests = list(islice(batch.requests(sexes), limits.images + 1))
            if len(requests) > limits.images:  # a table may list a file many times
                raise BoneAgeError(f"Drop at most {limits.images} images at a time.")
            rows = []
            for result in service.predict_many(requests):
                renamed = _with_display_name(result, batch.display_name(result.prediction.path))
                rows.append(rendering.table_row(service, renamed))
                progress((len(rows), len(requests)), unit="images")
        return rendering.render_table(service, rows, batch.errors)

    def on_click(
        dropped: list[UploadedFile],
        sex: str,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> tuple[Any, str]:
        return None, predict_batch(dropped, sex, progress)

    button.click(
        on_click,
        [files, sex],
        [files, table],
        show_progress_on=table,
        concurrency_id="several",
        concurrency_limit=2,
        api_visibility="private",
    )


def _model_tab(service: PredictionService, tab: gr.Tab) -> None:
    card, figures = gr.Markdown("", elem_classes=["page", "card"]), gr.HTML("", elem_classes="page")

    @cache
    def describe() -> tuple[str, str]:
        card_text = model_info.model_card_markdown(service.model, service.level)
        return card_text, model_info.model_figures(service.model)

    tab.select(describe, None, [card, figures], concurrency_limit=1, api_visibility="private")


def _with_display_name(result: PredictionResult, name: str) -> PredictionResult:
    error = _NO_SEX if result.prediction.error == MISSING_SEX_MESSAGE else result.prediction.error
    return replace(result, prediction=replace(result.prediction, path=name, error=error))


def _catch_errors(do: Callable[..., str]) -> Callable[..., str]:
    """Show an error of `do` as a message on the page."""

    @wraps(do)
    def wrapper(*args: Any) -> str:
        try:
            return do(*args)
        except BoneAgeError as error:
            return rendering.render_message(str(error))
        except Exception:
            return _unexpected_error()

    return wrapper


def _unexpected_error() -> str:
    """Log an unexpected error and return a message for the page."""
    log.exception("unexpected error on the page")
    return rendering.render_message("Prediction failed because of a program error; see the log.")


def _live_region(value: str) -> gr.HTML:
    """Return an HTML component whose changes screen readers announce (`aria-live`)."""
    return gr.HTML(value, js_on_load=_file("page.js"), elem_classes="page")


def _header(service: PredictionService) -> str:
    synthetic = any(member.metadata.synthetic for member in service.model.members)
    return rendering.render_header(model_info.format_model_line(service.model), synthetic=synthetic)


def _file(name: str) -> str:
    return (files("boneage_pl.webapp") / "templates" / name).read_text(encoding="utf-8")
