"""Model card and figures for the page."""

import base64
from pathlib import Path

from markupsafe import Markup

from boneage_pl.deploy.model_card import write_model_card
from boneage_pl.prediction.predictor import BoneAgePredictor
from boneage_pl.training.metadata import CheckpointMetadata
from boneage_pl.training.runs import run_of

# Not the largest errors, which show radiographs and ids.
_FIGURES = {
    "predicted_against_true": "Predicted against true bone age",
    "bland_altman": "Error against the mean of both ages (Bland–Altman)",
    "error_by_age": "Error by age and sex",
    "groups": "Error of each group by sex and age",
    "learning_curves": "Error during training",
}
_FIGURE = Markup(
    '<figure><img alt="{0}" src="data:image/png;base64,{1}"><figcaption>{0}</figcaption></figure>'
)


def format_model_line(model: BoneAgePredictor) -> str:
    """Return a line with the model's experiment, input size and validation MAE."""
    first = model.members[0].metadata
    if len(model.members) == 1:
        return (
            f"{first.experiment}, {first.image_size} pixels, MAE {validation_mae(first):.1f} months on its"
            f" {count_validation_images(first)} validation images"
        )
    lines = ", ".join(
        f"{member.metadata.experiment} ({validation_mae(member.metadata):.1f})" for member in model.members
    )
    return f"mean of {len(model.members)} models, each with its validation MAE in months: {lines}"


def model_card_markdown(model: BoneAgePredictor, level: float) -> str:
    """Return the model cards of all checkpoints as Markdown."""
    cards = [
        write_model_card(member.path, BoneAgePredictor([member], level), level) for member in model.members
    ]
    return "\n\n".join(card.split("---\n", 2)[2] for card in cards)  # without the front matter


def model_figures(model: BoneAgePredictor) -> str:
    """Return the figures of the reports beside the checkpoints, as HTML."""
    figures = [
        _FIGURE.format(f"{member.metadata.experiment}: {caption}", _content(path))
        for member in model.members
        for name, caption in _FIGURES.items()
        if (path := run_of(member.path) / "report" / f"{name}.png").is_file()
    ]
    if not figures:
        return "<p>No figures: there is no report beside the checkpoint.</p>"
    return Markup('<div class="figures">{}</div>').format(Markup("").join(figures))


def count_validation_images(record: CheckpointMetadata) -> int:
    """Return the number of distinct validation images of a checkpoint."""
    return len({record.split["pixel_sha256"][i] for i in record.validation["id"]})


def validation_mae(record: CheckpointMetadata) -> float:
    """Return a checkpoint's MAE on its own validation rows, in months."""
    pairs = zip(record.validation["predicted"], record.validation["bone_age"], strict=True)
    return sum(abs(predicted - true) for predicted, true in pairs) / max(len(record.validation["id"]), 1)


def _content(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
