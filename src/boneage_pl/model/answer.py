"""How a network's output becomes a loss, and months."""

from collections.abc import Callable

from torch import Tensor, autocast, float32, int64, nn, promote_types, zeros

from boneage_pl.data.transforms import Transforms
from boneage_pl.errors import BoneageError
from boneage_pl.model.input import Normalize, input_of

# (output, bone age in months [B]) → one number, in float32. A loss that has a method `months` is given the
# network's own output, and that method turns it into months [B]; all others are given months [B], of [B, 1].
# A method `spread`, of one that has it, turns the output into how unsure each answer is, in months [B].
Loss = Callable[[Tensor, Tensor], Tensor]


def months_of(output: Tensor, loss: Loss) -> Tensor:
    """Return the months [B] that a network's output means.

    Raises:
        BoneageError: it is several numbers an image, and the loss does not say what they mean.
    """
    with autocast(output.device.type, enabled=False):
        return _months(_exact(output), loss)


def loss_of(output: Tensor, bone_age: Tensor, loss: Loss) -> Tensor:
    """Return the loss of a network's output for bone ages in months [B]."""
    with autocast(output.device.type, enabled=False):
        output = _exact(output)
        return loss(output if hasattr(loss, "months") else _months(output, loss), bone_age)


def spread_of(output: Tensor, loss: Loss) -> Tensor | None:
    """Return how unsure a network's output is of each answer, in months [B]; `None` if the loss cannot."""
    if not hasattr(loss, "spread"):
        return None
    with autocast(output.device.type, enabled=False):
        return loss.spread(_exact(output))  # type: ignore[no-any-return]


def _exact(output: Tensor) -> Tensor:
    return output.to(promote_types(output.dtype, float32))  # a loss in bfloat16 would count in half months


def _months(output: Tensor, loss: Loss) -> Tensor:
    if hasattr(loss, "months"):
        return loss.months(output)
    if output.dim() != 2 or output.shape[1] != 1:
        name = getattr(loss, "__name__", type(loss).__name__)
        raise BoneageError(
            f"model: its output is {list(output.shape)}, and loss={name} takes one number an image, [B, 1].\n"
            "A loss with a method months(output) → [B] says what several numbers mean."
        )
    return output.squeeze(1)


class Reader(nn.Module):
    """The one way from the pixels of a radiograph to its bone age, in a validation and for all who ask.

    Args:
        network: image [B, C, H, W] as its `Input` says, and male [B] → output.
        transforms: of images that are not trained on.
        loss: see `Loss`.
    """

    def __init__(self, network: nn.Module, transforms: Transforms, loss: Loss) -> None:
        super().__init__()
        self.network = network
        self.transforms = transforms
        self.loss = loss
        self.normalize = Normalize(input_of(network))

    def forward(self, image: Tensor, male: Tensor) -> Tensor:
        """Estimate bone ages: uint8 [B, 1, H, W] and [B] → months, float [B]."""
        return months_of(self._output(image, male), self.loss).float()

    def with_spread(self, image: Tensor, male: Tensor) -> tuple[Tensor, Tensor | None]:
        """Estimate bone ages as `forward` does, and how unsure each is, see `spread_of`."""
        output = self._output(image, male)
        return months_of(output, self.loss).float(), spread_of(output, self.loss)

    def _output(self, image: Tensor, male: Tensor) -> Tensor:
        return self.network(self.preprocess(image), male)  # type: ignore[no-any-return]

    def preprocess(self, image: Tensor) -> Tensor:
        """Transform and normalize images as a validation does: uint8 [B, 1, H, W] → float32 [B, C, H, W]."""
        # By its shape: a length would fix the batch of an exported model.
        key = zeros(image.shape[0], dtype=int64, device=image.device)
        with autocast(image.device.type, enabled=False):
            normalized: Tensor = self.normalize(self.transforms(image, key))
        return normalized
