"""Regressor with any timm backbone, the sex, and a linear head."""

from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Le
from pydantic import validate_call
from torch import Tensor, nn

from boneage_pl.errors import BoneAgeError, first_line
from boneage_pl.model.backbones import create_backbone
from boneage_pl.model.layers import Float32Linear, Units


class BackboneRegressor(nn.Module):
    """Estimate bone age in months from a radiograph and the sex.

    Args:
        backbone: name of a timm network.
        image_size: side of the images in pixels, to check the backbone; no weight depends on it.
        channels: 3, or 1, which sums the first layer's weights over the three.
        sex_features: units of the layer for the sex, as published.
        hidden_features: units of a layer between features and output; 0 for none.
        dropout: probability, before each of the last layers.
        num_outputs: N, of the last layer; the first is a bone age, the loss defines the others.
        output_mean, output_std: months; scale of the first output, so that it starts near a typical age.
        weights: `None` for random ones, `imagenet`, or a file; see `create_backbone`.
        allow_download: whether to download ImageNet weights.
        backbone_kwargs: arguments of timm's constructor.

    Raises:
        BoneAgeError: unknown backbone, unsupported image size, or unavailable weights.
        ValueError: a number out of range.
    """

    @validate_call
    def __init__(
        self,
        backbone: str,
        image_size: int,
        channels: Literal[3, 1] = 3,
        sex_features: Units = 32,
        hidden_features: Annotated[int, Ge(0)] = 0,
        dropout: Annotated[float, Ge(0), Le(1)] = 0.0,
        num_outputs: Units = 1,
        output_mean: float = 0.0,
        output_std: Annotated[float, Gt(0)] = 1.0,
        weights: str | None = None,
        allow_download: bool = True,
        backbone_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        with torch.device("cpu"):  # some constructors need values, which the meta device lacks
            self.backbone, self.input = create_backbone(
                backbone, channels, weights, allow_download, backbone_kwargs or {}
            )
            width = _feature_width(self.backbone, backbone, channels, image_size) + sex_features
        self.sex = nn.Linear(1, sex_features)
        layers: list[nn.Module] = []
        if hidden_features:
            layers += [nn.Dropout(dropout), nn.Linear(width, hidden_features), nn.ReLU()]
        self.hidden = nn.Sequential(*layers, nn.Dropout(dropout))
        self.age = Float32Linear(hidden_features or width, num_outputs)
        self.output_mean, self.output_std = output_mean, output_std

    def forward(self, image: Tensor, male: Tensor) -> Tensor:
        """Estimate bone ages.

        Args:
            image: float [B, C, H, W], normalized by `input`.
            male: [B], 1 for male and 0 for female.

        Returns:
            float32 [B, N], the first of them months.
        """
        features = self.backbone(image)  # [B, C, H, W] → [B, F]
        sex = self.sex(male.to(features.dtype).unsqueeze(1))  # [B] → [B, 32]
        output: Tensor = self.age(self.hidden(torch.cat([features, sex], dim=1)))
        return torch.cat([self.output_mean + self.output_std * output[:, :1], output[:, 1:]], dim=1)


def _feature_width(network: nn.Module, name: str, channels: int, side: int) -> int:
    """Return a backbone's number of features.

    Raises:
        BoneAgeError: unsupported image size, or an output that is not a vector.
    """
    training = network.training
    try:
        with torch.no_grad():
            features = network.eval()(torch.zeros(1, channels, side, side))
    except (RuntimeError, ValueError, AssertionError, IndexError, TypeError) as error:
        raise BoneAgeError(
            f"model.backbone={name} does not support images of {side} × {side} pixels: {first_line(error)}"
        ) from error
    finally:
        network.train(training)
    if not isinstance(features, Tensor) or features.dim() != 2:
        raise BoneAgeError(f"model.backbone={name}: its output is not a vector of features.")
    return features.shape[1]
