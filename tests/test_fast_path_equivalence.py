"""Optimized training steps compared with plain ones, each from the same weights.

Whole runs cannot be compared: with random weights the backbone's gradient depends on the last bit of
its input, so any rounding leads to a different run. Single steps from the same weights can.
"""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from boneage_pl.data.datamodule import BoneAgeDataModule
from boneage_pl.data.dataset import Batch
from boneage_pl.data.phantom import write_phantom
from boneage_pl.data.transforms.compose import Compose
from boneage_pl.data.transforms.geometric import RandomHorizontalFlip
from boneage_pl.model.inception import InceptionRegressor
from boneage_pl.model.input_spec import InputSpec, Normalize
from boneage_pl.model.lightning_module import BoneAgeModule

pytestmark = pytest.mark.slow

Adam = partial(torch.optim.Adam, lr=1e-3)
MANY = [pytest.mark.slow, pytest.mark.timeout(3600)]
STEPS = [pytest.param(3, id="3 steps"), pytest.param(50, id="50 steps", marks=MANY)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., BoneAgeDataModule]:
    root = tmp_path_factory.mktemp("data") / "phantom"

    def made(**options: Any) -> BoneAgeDataModule:
        draw = partial(write_phantom, count=200, size=128, seed=0)
        data = BoneAgeDataModule(str(root), 107, 16, samples_per_group=40, phantom=draw, **options)
        data.prepare_data()
        data.setup()
        return data

    return made


def batches(data: BoneAgeDataModule, count: int) -> Iterator[Batch]:
    """Return the first training batches as the network gets them."""
    done = 0
    while True:
        for batch in data.train_dataloader():
            if done == count:
                return
            image = Compose([RandomHorizontalFlip()])(batch["image"], batch["key"])
            yield {**batch, "image": Normalize(InputSpec())(image)}
            done += 1


def module_of(**adam: Any) -> tuple[BoneAgeModule, torch.optim.Optimizer]:
    torch.manual_seed(0)
    make = partial(Adam, **adam)
    module = BoneAgeModule(InceptionRegressor(107), lambda network: make(network.parameters())).train()
    return module, module.build_optimizer()[0]


def backward(module: BoneAgeModule, batch: Batch, *, fast: bool) -> float:
    """Compute a step's gradients and return its loss in months."""
    module.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=fast):
        loss = F.l1_loss(module(batch["image"], batch["male"]).squeeze(1), batch["bone_age"])
    loss.backward()
    return float(loss.detach())


def flat(tensors: Any) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors]).double()


def test_cached_batches_equal_originals(data: Callable[..., BoneAgeDataModule]):
    """Fifty batches are bit-identical."""
    stored, original = (batches(data(cache=prepare), 50) for prepare in (True, False))
    for one, other in zip(stored, original, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def fused_against_plain(data: BoneAgeDataModule, steps: int, **adam: Any) -> float:
    """Return the largest relative difference of an update between fused Adam and `adam`."""
    module, optimizer = module_of(fused=True)
    other, plain = module_of(**adam)
    worst = 0.0
    for batch in batches(data, steps):
        backward(module, batch, fast=False)
        weights = flat(module.parameters())
        with torch.no_grad():
            for mine, theirs in zip(other.parameters(), module.parameters(), strict=True):
                mine.copy_(theirs)
                mine.grad = theirs.grad
        options = [{k: v for k, v in group.items() if k != "params"} for group in plain.param_groups]
        plain.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for group, values in zip(plain.param_groups, options, strict=True):
            group.update(values)
        optimizer.step()
        plain.step()
        update, theirs = (flat(m.parameters()) - weights for m in (module, other))
        worst = max(worst, float((update - theirs).norm() / update.norm()))
    return worst


@pytest.mark.parametrize("steps", STEPS)
def test_fused_adam_matches_plain(data: Callable[..., BoneAgeDataModule], steps: int):
    difference = fused_against_plain(data(), steps)
    print(f"{steps} updates differ by {difference:.1e} of their size at most")
    assert difference < 1e-5


@pytest.mark.parametrize(
    "fault",
    [
        {"lr": 1.001e-3},
        *(pytest.param(f, marks=pytest.mark.slow) for f in ({"eps": 1e-6}, {"betas": (0.9, 0.998)})),
    ],
)
def test_fused_adam_bound_detects_fault(data: Callable[..., BoneAgeDataModule], fault: dict[str, Any]):
    assert fused_against_plain(data(), 2, **fault) > 1e-4


def against_float32(
    data: BoneAgeDataModule, steps: int, *, fast: bool, disturbed: Callable[[Tensor], Tensor]
) -> tuple[float, float]:
    """Return how other steps differ from those of a training in float32, from the same weights.

    Args:
        data: of the training.
        steps: of it.
        fast: whether the others are in bfloat16.
        disturbed: what becomes of their images.

    Returns:
        The mean difference of the losses, of their size; the mean cosine of the gradients of Inception's last
        blocks. (How long a gradient is makes no difference to Adam.)
    """
    module, optimizer = module_of(fused=True)
    net = module.network.backbone
    last = [p for part in (net.Mixed_7a, net.Mixed_7b, net.Mixed_7c) for p in part.parameters()]
    losses, cosines = [], []
    for batch in batches(data, steps):
        statistics = copy.deepcopy(dict(module.named_buffers()))
        other = backward(module, {**batch, "image": disturbed(batch["image"])}, fast=fast)
        theirs = flat(p.grad for p in last)
        for name, buffer in module.named_buffers():
            buffer.copy_(statistics[name])
        loss = backward(module, batch, fast=False)
        cosines.append(float(F.cosine_similarity(flat(p.grad for p in last), theirs, 0)))
        optimizer.step()
        losses.append(abs(other - loss) / loss)
    found = sum(losses) / steps, sum(cosines) / steps
    print("{} steps: losses differ by {:.2%}, cosine {:.2f}".format(steps, *found))
    return found


@pytest.mark.parametrize("steps", STEPS)
def test_bfloat16_differs_like_rounded_input(data: Callable[..., BoneAgeDataModule], steps: int):
    """By at most twice the effect of rounding the image alone to bfloat16."""
    loss, cosine = against_float32(data(), steps, fast=True, disturbed=lambda image: image)
    rounded = against_float32(data(), steps, fast=False, disturbed=lambda image: image.bfloat16().float())
    assert cosine > rounded[1] / 2
    assert loss < 0.02


def test_bfloat16_bounds_detect_fault(data: Callable[..., BoneAgeDataModule]):
    """Detects an image that is mirrored in one of the steps."""
    _, cosine = against_float32(data(), 3, fast=True, disturbed=lambda image: image.flip(-1))
    assert cosine < 0.1
