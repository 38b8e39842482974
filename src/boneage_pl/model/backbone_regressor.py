"""Any torchvision or timm backbone with pooling, sex fusion and a linear head."""

from typing import Any

import torch
from torch import Tensor, nn

from boneage_pl.cli.checks import check_number
from boneage_pl.errors import BoneAgeError, first_line
from boneage_pl.model.backbones import BackboneSpec
from boneage_pl.model.input_spec import InputSpec
from boneage_pl.model.layers import Float32Linear, GeM, SexConcat, SexFiLM
from boneage_pl.model.pretrained import default_input_spec, find_pretrained, load_pretrained


class BackboneRegressor(nn.Module):
    """Estimate bone age in months from a radiograph, of any size that the backbone takes, and the sex.

    Args:
        backbone: a network's name, see `BackboneSpec`.
        image_size: side of the images in pixels, to check the backbone with; no weight depends on it.
        channels: 3, or 1, which sums the first layer's weights over the three.
        pooling: `mean`, which is the library's own, or `gem`.
        sex_fusion: `concat`, as published through a layer beside the features, or `film`, see `SexFiLM`.
        sex_features: units of that layer.
        hidden_features: units of a layer between features and output; 0 for none.
        dropout: probability, before each of the last layers.
        num_outputs: N, of the last layer: the first is a bone age, the loss defines the others.
        output_mean, output_std: months. The first output is in units of `output_std` from `output_mean`, so
            that it starts near a usual age.
        weights: `None` for random ones, `imagenet`, or a file; see `find_pretrained`.
        allow_download: whether ImageNet's may be downloaded.
        backbone_kwargs: of the backbone's constructor in its library.

    Raises:
        BoneAgeError: a backbone that does not exist or does not take such images, an unknown choice, a width
            out of range, unavailable weights.
    """

    def __init__(
        self,
        backbone: str,
        image_size: int,
        channels: int = 3,
        pooling: str = "mean",
        sex_fusion: str = "concat",
        sex_features: int = 32,
        hidden_features: int = 0,
        dropout: float = 0.0,
        num_outputs: int = 1,
        output_mean: float = 0.0,
        output_std: float = 1.0,
        weights: str | None = None,
        allow_download: bool = True,
        backbone_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        _check_choice("channels", channels, (3, 1))
        _check_choice("pooling", pooling, ("mean", "gem"))
        _check_choice("sex_fusion", sex_fusion, ("concat", "film"))
        check_number("model.sex_features", sex_features, 1)
        check_number("model.hidden_features", hidden_features, 0)
        check_number("model.num_outputs", num_outputs, 1)
        named = BackboneSpec.parse(backbone)
        # Not on the meta device: some constructors compute with the values.
        with torch.device("cpu"):
            network = named.build(**backbone_kwargs or {})
            last = named.last_layer(network)
            self.input = default_input_spec(named)
            if weights is not None:
                pretrained = find_pretrained(named, weights, allow_download)
                load_pretrained(network, last, pretrained)
                self.input = pretrained.input
            if channels == 1:
                self.input = adapt_to_grayscale(network, self.input)
            self.backbone, self.pool = named.without_classifier(network, GeM() if pooling == "gem" else None)
            whole = nn.Sequential(self.backbone, self.pool)
            features = _feature_width(whole, backbone, channels, image_size)  # [B, C, H, W] → [B, F]
        self.sex = SexConcat(features, sex_features) if sex_fusion == "concat" else SexFiLM(features)
        width = self.sex.width
        hidden = (
            [nn.Dropout(dropout), nn.Linear(width, hidden_features), nn.ReLU()] if hidden_features else []
        )
        self.hidden = nn.Sequential(*hidden, nn.Dropout(dropout))
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
        features = self.pool(self.backbone(image))  # [B, C, H, W] → [B, F]
        hidden = self.hidden(self.sex(features, male))
        output: Tensor = self.age(hidden)
        return torch.cat([self.output_mean + self.output_std * output[:, :1], output[:, 1:]], dim=1)


def _check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    if value not in choices:
        raise BoneAgeError(f"model.{name}={value}: it must be {' or '.join(map(str, choices))}.")


def adapt_to_grayscale(network: nn.Module, colors: InputSpec) -> InputSpec:
    """Adapt a network's first layer from three equal channels to one, and return the normalization for it.

    With one normalization for all three, as in [-1, 1], its features stay the same. With three that differ,
    each channel's weights are scaled to the mean deviation, which leaves a constant to the next layers.
    """
    first = next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    if first.in_channels != 3 or first.groups != 1:
        raise BoneAgeError("model.channels=1: the network's first layer does not see three channels.")
    gray = InputSpec((sum(colors.mean) / 3,), (sum(colors.std) / 3,))
    scale = torch.tensor([gray.std[0] / deviation for deviation in colors.std]).view(3, 1, 1)
    first.weight = nn.Parameter(
        (first.weight.detach() * scale).sum(1, keepdim=True)
    )  # [O, 3, h, w] → [O, 1, h, w]
    first.in_channels = 1
    return gray


def _feature_width(network: nn.Module, name: str, channels: int, side: int) -> int:
    """Return a backbone's number of features.

    Raises:
        BoneAgeError: it takes no image of that size, or does not output a vector.
    """
    training = network.training
    try:
        with torch.no_grad():
            features = network.eval()(torch.zeros(1, channels, side, side))
    except (RuntimeError, ValueError, AssertionError, IndexError, TypeError) as error:
        raise BoneAgeError(
            f"model.backbone={name} does not take images of {side} × {side} pixels: {first_line(error)}"
        ) from error
    finally:
        network.train(training)
    if not isinstance(features, Tensor) or features.dim() != 2:
        raise BoneAgeError(f"model.backbone={name}: its output is not a vector of features.")
    return features.shape[1]
