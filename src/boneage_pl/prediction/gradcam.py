"""Grad-CAM heatmaps."""

import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from boneage_pl.data.images.radiograph import stem_of
from boneage_pl.data.images.resize import Pixels
from boneage_pl.errors import BoneAgeError
from boneage_pl.model.feature_maps import gradcam_layer
from boneage_pl.prediction.ensemble import EnsembleMember
from boneage_pl.prediction.types import Prediction
from boneage_pl.utils.files import atomic_path
from boneage_pl.utils.optional import import_optional

Heatmap = NDArray[np.float32]
_COLORS = "RdBu_r"
_MAX_ALPHA = 0.55  # opacity of the strongest cell; our choice: the bones stay visible


def needs_captum() -> Any:
    """Return captum's module of methods, see `import_optional`."""
    return import_optional("captum.attr", "gradcam_dir=", "explain")


def grad_cam(member: EnsembleMember, pixels: Pixels, *, male: bool) -> Heatmap | None:
    """Return how much each part of a picture raised the answer, or lowered it where it is negative.

    Grad-CAM (Selvaraju et al., ICCV 2017) of the months, signed, in the last feature map that has 8 × 8 cells
    or more; in float32, whatever it was trained in.

    Args:
        member: the checkpoint.
        pixels: uint8 [side, side].
        male: the sex to predict for.

    Returns:
        float32 [h, w], in the map's own resolution; `None` of a network without such maps.

    Raises:
        BoneAgeError: captum is not installed.
    """
    grad_cam = needs_captum().LayerGradCam
    reader, place = member.predictor.module, member.predictor.device
    network = reader.network
    layer = gradcam_layer(network, pixels.shape[-1])
    if layer is None:
        return None
    with torch.no_grad():
        image = torch.from_numpy(pixels.copy()).to(place)[None, None]
        seen = reader.preprocess(image)
    boy = torch.tensor([float(male)], device=place)

    def months(image: Tensor) -> Tensor:
        return reader.decode_months(network(image, boy)).float()

    with torch.enable_grad():
        attribution = grad_cam(months, network.get_submodule(layer)).attribute(seen.requires_grad_(True))
    return attribution[0, 0].detach().float().cpu().numpy()


class GradCAMWriter:
    """Writes a picture of where the first of the checkpoints looked, for each answer.

    Args:
        folder: where they go; made if it is missing. A picture that is there already is kept.
        member: the checkpoint.

    Raises:
        BoneAgeError: captum is not installed, or the folder cannot be made.
    """

    def __init__(self, folder: Path, member: EnsembleMember) -> None:
        needs_captum()
        self.folder, self.member = folder, member
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BoneAgeError(f"gradcam_dir={folder} cannot be made: {error.strerror}.") from error

    def write(self, answer: Prediction, pixels: Pixels) -> Path:
        """Write the picture of an answer, and return its path.

        Raises:
            BoneAgeError: the network has no map that could be shown, or the picture cannot be written.
        """
        assert answer.male is not None
        heatmap = grad_cam(self.member, pixels, male=answer.male)
        if heatmap is None:
            raise BoneAgeError("gradcam_dir=: this network has no feature maps to look at.")
        path = self._free(f"{stem_of(answer.path) or 'picture'}_{answer.sex}")
        try:
            with atomic_path(path) as beside:
                overlay(pixels, heatmap, answer).savefig(beside, format="png", dpi=100)
        except OSError as error:
            raise BoneAgeError(f"{path} cannot be written: {error.strerror}.") from error
        return path

    def _free(self, stem: str) -> Path:
        path = self.folder / f"{stem}.png"
        number = 2
        while path.exists():
            path = self.folder / f"{stem}_{number}.png"
            number += 1
        return path


def colorize(heatmap: Heatmap, strongest: float = 1.0) -> Pixels:
    """Return a map's colors, red where the answer was raised and blue where it was lowered.

    Args:
        heatmap: [h, w].
        strongest: opacity of the strongest cell; the others' are in proportion.

    Returns:
        uint8 [h, w, 4], the last of them opacity.
    """
    scaled = heatmap / (float(np.abs(heatmap).max()) or math.inf)
    colors: Pixels = mpl.colormaps[_COLORS]((scaled + 1) / 2, bytes=True)
    colors[..., 3] = np.rint(255 * strongest * np.abs(scaled))
    return colors


def overlay(pixels: Pixels, heatmap: Heatmap, answer: Prediction) -> Figure:
    """Draw a map over its picture, cell by cell: nothing is smoothed into a resolution that it has not."""
    side = pixels.shape[0]
    figure = Figure(figsize=(9, 5), layout="constrained")
    plain, seen = figure.subplots(1, 2)
    for axes in (plain, seen):
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, extent=(0, side, side, 0))
        axes.set_axis_off()
    colors = mpl.colormaps[_COLORS]
    seen.imshow(colorize(heatmap, _MAX_ALPHA), interpolation="nearest", extent=(0, side, side, 0))
    height, width = heatmap.shape
    plain.set_title(f"{answer.years_months} ({answer.months:.1f} months), {answer.sex}", fontsize=10)
    cell = f"each {side / height:.0f} px of the {side}"
    seen.set_title(
        f"raised the answer (red), lowered it (blue)\n{height} × {width} cells, {cell}", fontsize=10
    )
    bar = mpl.cm.ScalarMappable(mpl.colors.Normalize(-1, 1), colors)
    figure.colorbar(bar, ax=seen, shrink=0.7, label="of the strongest cell")
    return figure
