"""Grad-CAM heatmaps."""

from itertools import chain, count
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from boneage_pl.data.images.radiograph import stem_of
from boneage_pl.data.images.resize import Pixels
from boneage_pl.data.transforms.compose import as_float
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
    """Import `captum.attr`, see `import_optional`."""
    return import_optional("captum.attr", "gradcam_dir=", "explain")


class Explanation(NamedTuple):
    """What a network saw, and what raised or lowered its prediction.

    Args:
        image: transformed, for example cropped, but not normalized; uint8 [n, n].
        heatmap: signed, over the image in the resolution of the feature map: positive where it raised
            the prediction; `None` for a network without feature maps. float32 [h, w].
    """

    image: Pixels
    heatmap: Heatmap | None


def grad_cam(member: EnsembleMember, pixels: Pixels, *, male: bool) -> Explanation:
    """Explain a prediction by Grad-CAM (Selvaraju et al., ICCV 2017).

    Of the months, in the last feature map of at least 8 × 8 cells, in float32 whatever the precision.

    Args:
        member: the checkpoint.
        pixels: uint8 [side, side].
        male: the sex to predict for.

    Raises:
        BoneAgeError: captum is not installed.
    """
    layer_gradcam = needs_captum().LayerGradCam
    module, device = member.predictor.module, member.predictor.device
    stored = torch.from_numpy(pixels.copy()).to(device)[None, None]
    with torch.no_grad():
        transformed = module.transforms(stored, torch.zeros(1, dtype=torch.int64, device=device))
        image = module.normalize(transformed).to(next(module.network.parameters()).dtype)
    seen = (255 * as_float(transformed)[0, 0]).round().clamp(0, 255).byte().cpu().numpy()
    layer = gradcam_layer(module.network, image.shape[-1])
    if layer is None:
        return Explanation(seen, None)
    sex = torch.tensor([float(male)], device=device)

    def months(image: Tensor) -> Tensor:
        return module.decode_months(module.network(image, sex)).float()

    with torch.enable_grad():
        maps = layer_gradcam(months, module.network.get_submodule(layer)).attribute(
            image.requires_grad_(True)
        )
    return Explanation(seen, maps[0, 0].detach().float().cpu().numpy())


class GradCAMWriter:
    """Writes a Grad-CAM overlay for each prediction.

    Args:
        folder: output folder, created if missing; existing files are not overwritten.
        member: the checkpoint.

    Raises:
        BoneAgeError: captum is not installed, or the folder cannot be created.
    """

    def __init__(self, folder: Path, member: EnsembleMember) -> None:
        needs_captum()
        self.folder, self.member = folder, member
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BoneAgeError(f"gradcam_dir={folder} cannot be created: {error.strerror}.") from error

    def write(self, prediction: Prediction, pixels: Pixels) -> Path:
        """Write the overlay of a prediction and return its path.

        Raises:
            BoneAgeError: the network has no feature maps, or the file cannot be written.
        """
        assert prediction.male is not None
        image, heatmap = grad_cam(self.member, pixels, male=prediction.male)
        if heatmap is None:
            raise BoneAgeError("gradcam_dir=: Grad-CAM needs a network with feature maps.")
        stem = f"{stem_of(prediction.path) or 'image'}_{prediction.sex}"
        numbered = (self.folder / f"{stem}{n}.png" for n in chain([""], map("_{}".format, count(2))))
        path = next(path for path in numbered if not path.exists())
        try:
            with atomic_path(path) as beside:
                overlay(image, heatmap, prediction).savefig(beside, format="png", dpi=100)
        except OSError as error:
            raise BoneAgeError(f"{path} cannot be written: {error.strerror}.") from error
        return path


def colorize(heatmap: Heatmap, max_alpha: float = 1.0) -> Pixels:
    """Color a heatmap: red where the prediction was raised, blue where it was lowered.

    Args:
        heatmap: [h, w].
        max_alpha: opacity of the strongest cell; proportional for the others.

    Returns:
        uint8 [h, w, 4], RGBA.
    """
    scaled = heatmap / (float(np.abs(heatmap).max()) or inf)
    colors: Pixels = mpl.colormaps[_COLORS]((scaled + 1) / 2, bytes=True)
    colors[..., 3] = np.rint(255 * max_alpha * np.abs(scaled))
    return colors


def overlay(pixels: Pixels, heatmap: Heatmap, prediction: Prediction) -> Figure:
    """Draw a heatmap over the network's input, without smoothing, which would suggest a finer resolution."""
    side = pixels.shape[0]
    height, width = heatmap.shape
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots(1, 2)
    for ax in axes:
        ax.imshow(pixels, cmap="gray", vmin=0, vmax=255, extent=(0, side, side, 0))
        ax.set_axis_off()
    axes[1].imshow(colorize(heatmap, _MAX_ALPHA), interpolation="nearest", extent=(0, side, side, 0))
    axes[0].set_title(
        f"{prediction.years_months} ({prediction.months:.1f} months), {prediction.sex}", fontsize=10
    )
    axes[1].set_title(
        "raised the prediction (red), lowered it (blue)\n"
        f"{height} × {width} cells, each {side / height:.0f} px of the {side}",
        fontsize=10,
    )
    scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(-1, 1), mpl.colormaps[_COLORS])
    figure.colorbar(scale, ax=axes[1], shrink=0.7, label="relative to the strongest cell")
    return figure
