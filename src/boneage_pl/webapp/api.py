"""REST API: predictions as JSON or DICOM SR, the model, health and metrics."""

from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, File, Form, Header, HTTPException, Request, Response, UploadFile
from fastapi.responses import PlainTextResponse
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, Field
from starlette.formparsers import MultiPartParser

from boneage_pl import __version__
from boneage_pl.errors import BoneAgeError
from boneage_pl.prediction.dicom_sr import build_dicom_sr
from boneage_pl.prediction.gradcam import colorize
from boneage_pl.prediction.inputs import parse_sex
from boneage_pl.prediction.types import Prediction, PredictionRequest, PredictionResult
from boneage_pl.webapp.age_input import parse_age
from boneage_pl.webapp.metrics import Metrics
from boneage_pl.webapp.model_info import count_validation_images, validation_mae
from boneage_pl.webapp.rendering import encode_png
from boneage_pl.webapp.service import PredictionService

DICOM = "application/dicom"
SPOOL_BYTES = 64 << 20  # of a posted file that stays in memory: it is read into it anyway


class PredictedAge(BaseModel):
    """The predicted bone age of one image for one sex; ages in months."""

    path: str = Field(description="file name")
    sex: Literal["F", "M", ""] = Field(description="sex used for the prediction; empty if unknown")
    months: float | None = Field(description="bone age in months; null if there is an error")
    years_months: str = Field(description="bone age in years and months")
    lower: float | None = Field(description="lower bound of the prediction interval, months")
    upper: float | None = Field(description="upper bound of the prediction interval, months")
    flags: list[str] = Field(description="quality flags, such as out_of_distribution")
    error: str = Field(description="why there is no prediction; empty otherwise")
    chronological_age: float | None = Field(description="months; given, or from a DICOM file")
    age_difference: float | None = Field(description="bone age minus chronological age")
    age_difference_sd: float | None = Field(
        description="the difference in standard deviations of skeletal age"
    )
    notes: list[str] = Field(description="preprocessing steps and remarks")
    predicted_std: float | None = Field(
        description="standard deviation of the predicted distribution, months, if the model has one"
    )
    gradcam: str | None = Field(None, description="Grad-CAM heatmap, a Base64-encoded PNG file, if requested")
    network_input: str | None = Field(None, description="with gradcam: the image that it covers, likewise")


class Predictions(BaseModel):
    """One prediction per file, or two where the sex is unknown."""

    model: str
    interval_level: float
    predictions: list[PredictedAge]


class Member(BaseModel):
    """One checkpoint of the model."""

    experiment: str
    image_size: int = Field(description="side of the input, pixels")
    validation_images: int
    validation_mae: float = Field(description="months")
    synthetic: bool = Field(description="trained on synthetic radiographs; not valid for real ones")


class ModelInfo(BaseModel):
    """The model being served."""

    version: str = Field(description="version of boneage_pl")
    interval_level: float
    members: list[Member]
    intended_use: str = "A research result. Not a medical device; not for diagnosis or treatment."


class Problem(BaseModel):
    """Why a request was rejected."""

    detail: str | list[dict[str, Any]]


def create_api(service: PredictionService, metrics: Metrics, max_images: int) -> FastAPI:
    """Return the application; handlers that never block are async, so they respond while all threads predict.

    Args:
        service: makes the predictions.
        metrics: shown under /metrics.
        max_images: largest number of files per request.
    """
    app = FastAPIOffline(
        title="boneage_pl",
        version=__version__,
        description="Bone ages, in months, from hand radiographs. A research result, not a medical device.",
        redoc_url=None,
    )
    MultiPartParser.spool_max_size = SPOOL_BYTES

    async def check_form(request: Request) -> None:
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise HTTPException(415, "Post the files as multipart/form-data.")

    problems: dict[int | str, dict[str, Any]] = {
        code: {"model": Problem, "description": description}
        for code, description in (
            (413, "too large, or too many files"),
            (415, "not multipart/form-data"),
            (422, "an invalid field"),
            (503, "too many requests are queued"),
        )
    }

    @app.post(
        "/api/v1/predict",
        response_model=Predictions,
        responses={200: {"content": {DICOM: {}}}, **problems},
        dependencies=[Depends(check_form)],
    )
    def predict(
        files: Annotated[
            list[UploadFile], File(min_length=1, description="radiographs: PNG, JPEG, TIFF, DICOM …")
        ],
        sex: Annotated[
            Literal["F", "M", "unknown", ""], Form(description="of all files; empty: from each DICOM file")
        ] = "",
        chronological_age: Annotated[str, Form(description="9 y 2 m, 9.5 y or 110 m")] = "",
        birth_date: Annotated[
            str, Form(description="with radiograph_date, instead of an age: 2014-05-30")
        ] = "",
        radiograph_date: Annotated[str, Form(description="as 2024-01-31")] = "",
        interval_level: Annotated[
            float, Form(ge=0.001, lt=1, description="coverage of the prediction intervals")
        ] = service.level,
        gradcam: Annotated[bool, Form(description="add Grad-CAM heatmaps")] = False,
        identify: Annotated[bool, Form(description="copy patient and study into the DICOM SR")] = False,
        accept: Annotated[str, Header(include_in_schema=False)] = "",
    ) -> Any:
        """Predict bone ages. A file that cannot be read yields an item with an error.

        With `Accept: application/dicom` and one DICOM file of known sex, the response is a structured report.
        """
        if len(files) > max_images:
            raise HTTPException(413, f"{len(files)} files; at most {max_images} per request.")
        try:
            age = parse_age(chronological_age, birth_date, radiograph_date)
        except BoneAgeError as error:
            raise HTTPException(422, str(error)) from error
        contents = [file.file.read() for file in files]
        requests = [PredictionRequest(content, parse_sex(sex or None)) for content in contents]
        names = {id(request): file.filename or "" for request, file in zip(requests, files, strict=True)}
        results = list(service.predict_many(requests))
        predictions = [_complete(service, r, names[id(r.request)], age, interval_level) for r in results]
        if DICOM in [kind.partition(";")[0].strip().lower() for kind in accept.split(",")]:
            return _structured_report(service, contents, predictions, interval_level, identify=identify)
        items = [PredictedAge(**prediction.to_dict()) for prediction in predictions]
        if gradcam:
            for item, result in zip(items, results, strict=True):
                if result.prediction.months is not None:
                    image, heatmap = service.grad_cam(result)
                    item.network_input = encode_png(image)
                    item.gradcam = None if heatmap is None else encode_png(colorize(heatmap))
        return Predictions(model=_model_name(service), interval_level=interval_level, predictions=items)

    @app.get("/api/v1/model")
    async def model() -> ModelInfo:
        """Describe the model."""
        records = [member.metadata for member in service.model.members]
        members = [
            Member(
                experiment=record.experiment,
                image_size=record.image_size,
                validation_images=count_validation_images(record),
                validation_mae=validation_mae(record),
                synthetic=record.synthetic,
            )
            for record in records
        ]
        return ModelInfo(version=__version__, interval_level=service.level, members=members)

    @app.head("/healthz", include_in_schema=False)  # which monitors request
    @app.get("/healthz", response_class=PlainTextResponse)
    async def healthz() -> str:
        """Return `ok` once the model is loaded."""
        return "ok\n"

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics_text() -> str:
        """Return request counts, durations and queue length in Prometheus format."""
        return metrics.text()

    return app


def _complete(
    service: PredictionService, result: PredictionResult, name: str, age: float | None, level: float
) -> Prediction:
    """Add the file's name, the given age and the interval at a level to a prediction."""
    prediction = replace(result.prediction, path=name)
    if age is not None:
        prediction = replace(prediction, chronological_age=age)
    if prediction.months is not None and prediction.male is not None and level != service.level:
        lower, upper = service.model.intervals.at_level(level).interval(
            prediction.months, male=prediction.male, std=prediction.std
        )
        prediction = replace(prediction, lower=lower, upper=upper)
    return prediction


def _structured_report(
    service: PredictionService,
    contents: list[bytes],
    predictions: list[Prediction],
    level: float,
    *,
    identify: bool,
) -> Response:
    if len(contents) != 1 or len(predictions) != 1:
        raise HTTPException(
            422, "A DICOM SR describes one file and one sex: post one file, with sex F or M if it has none."
        )
    (content,), (prediction,) = contents, predictions
    if prediction.error:
        raise HTTPException(422, f"{prediction.path}: {prediction.error}")
    try:
        report = build_dicom_sr(content, prediction, _model_name(service), level, identify=identify)
    except BoneAgeError as error:
        raise HTTPException(422, f"{prediction.path}: {error}") from error
    return Response(report, media_type=DICOM)


def _model_name(service: PredictionService) -> str:
    return ", ".join(dict.fromkeys(member.metadata.experiment for member in service.model.members))
