"""How a network's output becomes a loss, and months."""

from collections.abc import Callable

from torch import Tensor, autocast, float32, int64, nn, promote_types, zeros

from boneage_pl.data.transforms.compose import Compose
from boneage_pl.errors import BoneAgeError
from boneage_pl.model.input import Normalize, get_input_spec

# (output, bone age in months [B]) → one number, in float32. A loss that has a method `decode_months` is given
# the network's own output, and that method turns it into months [B]; all others are given months [B], of [B,
# 1]. A method `std`, of one that has it, turns the output into how unsure each answer is, in months [B].
Loss = Callable[[Tensor, Tensor], Tensor]


def decode_months(output: Tensor, loss: Loss) -> Tensor:
    """Return the months [B] that a network's output means.

    Raises:
        BoneAgeError: it is several numbers an image, and the loss does not say what they mean.
    """
    with autocast(output.device.type, enabled=False):
        return _decode(_to_float32(output), loss)


def compute_loss(output: Tensor, bone_age: Tensor, loss: Loss) -> Tensor:
    """Return the loss of a network's output for bone ages in months [B]."""
    with autocast(output.device.type, enabled=False):
        output = _to_float32(output)
        return loss(output if hasattr(loss, "decode_months") else _decode(output, loss), bone_age)


def predictive_std(output: Tensor, loss: Loss) -> Tensor | None:
    """Return how unsure a network's output is of each answer, in months [B]; `None` if the loss cannot."""
    if not hasattr(loss, "std"):
        return None
    with autocast(output.device.type, enabled=False):
        return loss.std(_to_float32(output))  # type: ignore[no-any-return]


def _to_float32(output: Tensor) -> Tensor:
    return output.to(promote_types(output.dtype, float32))  # a loss in bfloat16 would count in half months


def _decode(output: Tensor, loss: Loss) -> Tensor:
    if hasattr(loss, "decode_months"):
        return loss.decode_months(output)
    if output.dim() != 2 or output.shape[1] != 1:
        name = getattr(loss, "__name__", type(loss).__name__)
        raise BoneAgeError(
            f"model: its output is {list(output.shape)}, and loss={name} takes one number an image, [B, 1].\n"
            "A loss with a method decode_months(output) → [B] says what several numbers mean."
        )
    return output.squeeze(1)


class InferenceModule(nn.Module):
    """The one way from the pixels of a radiograph to its bone age, in a validation and for all who ask.

    Args:
        network: image [B, C, H, W] as its `Input` says, and male [B] → output.
        transforms: of images that are not trained on.
        loss: see `Loss`.
    """

    def __init__(self, network: nn.Module, transforms: Compose, loss: Loss) -> None:
        super().__init__()
        self.network = network
        self.transforms = transforms
        self.loss = loss
        self.normalize = Normalize(get_input_spec(network))

    def forward(self, image: Tensor, male: Tensor) -> Tensor:
        """Estimate bone ages: uint8 [B, 1, H, W] and [B] → months, float [B]."""
        return decode_months(self._output(image, male), self.loss).float()

    def predict_with_std(self, image: Tensor, male: Tensor) -> tuple[Tensor, Tensor | None]:
        """Estimate bone ages as `forward` does, and how unsure each is, see `predictive_std`."""
        output = self._output(image, male)
        return decode_months(output, self.loss).float(), predictive_std(output, self.loss)

    def _output(self, image: Tensor, male: Tensor) -> Tensor:
        return self.network(self.preprocess(image), male)  # type: ignore[no-any-return]

    def preprocess(self, image: Tensor) -> Tensor:
        """Transform and normalize images as a validation does: uint8 [B, 1, H, W] → float32 [B, C, H, W]."""
        # By its shape: a length would fix the batch of an exported model.
        key = zeros(image.shape[0], dtype=int64, device=image.device)
        with autocast(image.device.type, enabled=False):
            normalized: Tensor = self.normalize(self.transforms(image, key))
        return normalized
