"""Look up torchvision and timm backbones."""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from torch import nn
from torchvision import models as torchvision_models

from boneage_pl.errors import BoneAgeError

# Of torchvision, with heads for training alone, and with pixels rescaled to [-1, 1] inside at its weights.
RESCALED_INPUT = ("inception_v3", "googlenet")
AUXILIARY_LAYERS = ("AuxLogits", "aux1", "aux2")


@dataclass(frozen=True)
class BackboneSpec:
    """A network by its name in a library, `torchvision` or `timm`."""

    library: str
    name: str

    @classmethod
    def parse(cls, backbone: str) -> "BackboneSpec":
        """Read `resnet18`, torchvision's where it has one of that name, or `timm/resnet18`.

        Raises:
            BoneAgeError: neither has it, or timm is needed and not installed.
        """
        library, _, name = backbone.rpartition("/")
        known = torchvision_models.list_models(module=torchvision_models)
        if library in ("", "torchvision") and name in known:
            return cls("torchvision", name)
        if library in ("", "timm"):
            timm = import_timm(f"model.backbone={backbone}")
            if timm.is_model(name):
                return cls("timm", name)
            known += timm.list_models()
        near = ", ".join(get_close_matches(name, known, 3))
        raise BoneAgeError(
            f"model.backbone={backbone}: neither torchvision nor timm has a network of that name."
            + (f"\nNear it: {near}" if near else "")
        )

    def build(self, **options: Any) -> nn.Module:
        """Return the network with its last layer, at random weights; `options` go to its constructor."""
        if self.library == "timm":
            return import_timm(self.name).create_model(self.name, **options)  # type: ignore[no-any-return]
        if self.name in RESCALED_INPUT:
            options = {"aux_logits": False, "init_weights": True, **options}
        return torchvision_models.get_model(self.name, **options)

    def last_layer(self, network: nn.Module) -> str:
        """Return the name of the layer that answers with ImageNet's classes.

        Raises:
            BoneAgeError: there is none.
        """
        if self.library == "timm":
            name = network.pretrained_cfg.get("classifier")  # type: ignore[union-attr, operator]
        else:
            name = next(
                (n for n, m in reversed([*network.named_modules()]) if isinstance(m, nn.Linear)), None
            )
        if not isinstance(name, str) or not isinstance(network.get_submodule(name), nn.Linear | nn.Identity):
            raise BoneAgeError(f"model.backbone={self.name} has not one last layer that could be left out.")
        return name

    def without_classifier(self, network: nn.Module, pool: nn.Module | None) -> tuple[nn.Module, nn.Module]:
        """Return a network without its last layer, and what follows: image [B, C, H, W] → features [B, F].

        Args:
            network: as `whole` makes it; it is changed.
            pool: [B, F, h, w] → [B, F, 1, 1]; `None` for the network's own.

        Raises:
            BoneAgeError: its own pool cannot be exchanged.
        """
        if self.library == "timm":
            network.reset_classifier(0, **({"global_pool": ""} if pool else {}))  # type: ignore[operator]
            return network, nn.Sequential(pool, nn.Flatten()) if pool else nn.Identity()
        network.set_submodule(self.last_layer(network), nn.Identity())
        if pool and not isinstance(getattr(network, "avgpool", None), nn.AdaptiveAvgPool2d):
            raise BoneAgeError(f"model.pooling=gem: torchvision's {self.name} pools in a way of its own.")
        if pool:
            network.avgpool = pool
        return network, nn.Identity()


def import_timm(what: str) -> Any:
    """Return timm.

    Raises:
        BoneAgeError: it is not installed, which `what` needs.
    """
    try:
        import timm
    except ImportError as error:
        raise BoneAgeError(
            f"{what}: torchvision has no such network, and timm is not installed:\n"
            "pip install 'boneage_pl[pretrained]' (or pip install timm)"
        ) from error
    return timm
