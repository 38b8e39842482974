"""The published network: Inception v3 features and the sex, three linear layers."""

from typing import Literal

import torch
from pydantic import validate_call
from torch import Tensor, nn
from torchvision.models import Inception_V3_Weights, inception_v3

from boneage_pl.errors import BoneAgeError
from boneage_pl.model.input_spec import NORMALIZATIONS, SYMMETRIC, InputSpec
from boneage_pl.model.layers import Float32Linear, Units
from boneage_pl.model.pretrained import IMAGENET, fetch_file, load_weights, read_state_dict

SMALLEST_IMAGE = 107  # pixels; smaller images have a 1 × 1 feature map, too small for the 2 × 2 pool


def feature_map_side(image_size: int) -> int:
    """Return the side of Inception v3's last feature map for a square image: 14 for the published 500."""
    side = (image_size - 3) // 2 + 1  # Conv2d_1a, stride 2
    side -= 2  # Conv2d_2a, no padding
    side = (side - 3) // 2 + 1  # maxpool1
    side -= 2  # Conv2d_4a, no padding
    for _ in ("maxpool2", "Mixed_6a", "Mixed_7a"):
        side = (side - 3) // 2 + 1
    return side


class InceptionRegressor(nn.Module):
    """Estimate bone age in months from a radiograph and the sex.

    Args:
        image_size: side of the square images in pixels, at least 107; sets the first hidden layer's width.
        sex_features: units of the layer for the sex.
        hidden_features: units of the two hidden layers.
        weights: `None` for torchvision's random initialization, `imagenet`, or a file with torchvision's
            names.
        allow_download: whether to download ImageNet weights.
        normalization: `imagenet` (its mean and standard deviation), `inception` ([-1, 1]), or `None` for that
            of the weights, and `imagenet` for random ones.

    Raises:
        BoneAgeError: image size too small, or unknown or unavailable weights.
        ValueError: invalid number of units or normalization.
    """

    @validate_call
    def __init__(
        self,
        image_size: int = 500,
        sex_features: Units = 32,
        hidden_features: Units = 1000,
        weights: str | None = None,
        allow_download: bool = True,
        normalization: Literal["imagenet", "inception"] | None = None,
    ) -> None:
        super().__init__()
        check_image_size(image_size)
        self.input = InputSpec()
        pooled = 2048 * (feature_map_side(image_size) // 2) ** 2
        has_values = torch.get_default_device().type != "meta"  # not on the meta device
        self.backbone = inception_v3(
            weights=None, aux_logits=False, transform_input=False, init_weights=has_values and weights is None
        )
        if weights is not None:
            source = weights
            if weights == IMAGENET:
                source = str(fetch_file(Inception_V3_Weights.IMAGENET1K_V1.url, allow_download))
            values = read_state_dict(source, self.backbone.state_dict())
            load_weights(self.backbone, values, source, ("fc", "AuxLogits"))
            self.input = SYMMETRIC  # torchvision's weights expect [-1, 1]
        if normalization is not None:
            self.input = NORMALIZATIONS[normalization]
        self.backbone.avgpool = nn.MaxPool2d(kernel_size=2, stride=2)  # [B, 2048, 14, 14] → [B, 2048, 7, 7]
        self.backbone.dropout = nn.Flatten()  # → [B, 100352]
        self.backbone.fc = nn.Identity()
        self.sex = nn.Linear(1, sex_features)
        self.hidden = nn.Sequential(
            nn.Linear(pooled + sex_features, hidden_features),  # [B, 100384] → [B, 1000]
            nn.ReLU(),
            nn.Linear(hidden_features, hidden_features),
            nn.ReLU(),
        )
        self.age = Float32Linear(hidden_features, 1)

    def forward(self, image: Tensor, male: Tensor) -> Tensor:
        """Estimate bone ages.

        Args:
            image: float [B, 3, H, W], normalized by `input`.
            male: [B], 1 for male and 0 for female.

        Returns:
            Months, float32 [B, 1].
        """
        pixels = self.backbone(image)  # [B, 3, 500, 500] → [B, 100352]
        sex = self.sex(male.to(pixels.dtype).unsqueeze(1))  # [B] → [B, 32]
        hidden: Tensor = self.hidden(torch.cat([pixels, sex], dim=1))  # [B, 100384] → [B, 1000]
        return self.age(hidden)  # type: ignore[no-any-return]


def check_image_size(image_size: int) -> None:
    """Raise `BoneAgeError` if images are too small for the 2 × 2 max-pool."""
    if image_size < SMALLEST_IMAGE:
        raise BoneAgeError(
            f"data.image_size={image_size} is too small for the 2 × 2 max-pool after Inception v3:\n"
            f"use at least {SMALLEST_IMAGE} pixels (published: 500)."
        )
