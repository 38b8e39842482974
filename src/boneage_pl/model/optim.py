"""Parameter groups, optimizer and learning-rate schedule."""

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from boneage_pl.cli.instantiate import instantiate_partial
from boneage_pl.errors import BoneAgeError

LENGTH_OPTIONS = ("total_steps", "T_max", "total_iters")  # a scheduler's options; null is the run's length
PLATEAU_SCHEDULER = "torch.optim.lr_scheduler.ReduceLROnPlateau"

OptimizerFactory = Callable[[nn.Module], Optimizer]
SchedulerFactory = Callable[[Optimizer, int], Any]


def build_optimizer_factory(node: DictConfig) -> OptimizerFactory:
    """Return a function that builds the configured optimizer for a network.

    `layer_decay` is the factor of the learning rate from each layer of a timm backbone to the one before it,
    by timm's own groups. `no_decay_1d` exempts parameters of one dimension from weight decay: biases, and
    the scales and shifts of norms. `state` is not the optimizer's: see `load_optimizer_state`.

    Raises:
        BoneAgeError: `layer_decay` without a learning rate.
    """
    options = _to_plain(node)
    options.pop("state", None)
    no_decay_1d, decay = bool(options.pop("no_decay_1d", False)), options.pop("layer_decay", None) or 1.0
    if decay < 1 and "lr" not in options:
        raise BoneAgeError("optimizer.layer_decay: it scales optimizer.lr, which is missing.")
    make = instantiate_partial(OmegaConf.create(options), "optimizer")

    def build(network: nn.Module) -> Optimizer:
        if not no_decay_1d and decay == 1:
            return make(network.parameters())
        return make(_group_parameters(network, options, no_decay_1d, decay))

    return build


def _group_parameters(
    network: nn.Module, options: dict[str, Any], no_decay_1d: bool, decay: float
) -> list[dict[str, Any]]:
    """Group parameters by learning rate and weight decay: timm's layers of the backbone, then the head."""
    from timm.optim._param_groups import param_groups_layer_decay  # slow to import: not before it is needed

    weight_decay = options.get("weight_decay", 0.0)
    groups: list[dict[str, Any]] = []
    backbone = getattr(network, "backbone", None)
    if decay < 1:
        if not isinstance(backbone, nn.Module) or not hasattr(backbone, "group_matcher"):
            raise BoneAgeError("optimizer.layer_decay: needs the layers of a timm network: model=backbone.")
        groups += param_groups_layer_decay(
            backbone, weight_decay, weight_decay_exclude_1d=no_decay_1d, layer_decay=decay
        )
        for group in groups:
            group["lr"] = options["lr"] * group.pop("lr_scale")
    grouped = {id(parameter) for group in groups for parameter in group["params"]}
    rest = [p for p in network.parameters() if p.requires_grad and id(p) not in grouped]
    vectors = [p for p in rest if no_decay_1d and p.ndim < 2]
    matrices = [p for p in rest if not no_decay_1d or p.ndim >= 2]
    groups += [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def load_optimizer_state(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Load an optimizer's moments and step counts, keeping the learning rate and the other options.

    Args:
        optimizer: of the same class, with the same parameters.
        state: from `Optimizer.state_dict`.

    Raises:
        BoneAgeError: its parameter groups differ.
    """
    ours = optimizer.state_dict()["param_groups"]
    sizes, theirs = ([len(group["params"]) for group in groups] for groups in (ours, state["param_groups"]))
    if sizes != theirs:
        raise BoneAgeError(
            f"optimizer.state=checkpoint: its parameter groups have {theirs} parameters, this run's {sizes}."
        )
    optimizer.load_state_dict({"state": deepcopy(state["state"]), "param_groups": ours})


def base_lr(optimizer: Optimizer) -> float:
    """Return the highest learning rate of an optimizer's groups, before any layer decay."""
    return max(float(group["lr"]) for group in optimizer.param_groups)


def length_option(node: DictConfig | None) -> str | None:
    """Return the first of `LENGTH_OPTIONS` that is `null` in a scheduler's configuration, if any."""
    return next((name for name in LENGTH_OPTIONS if node and name in node and node[name] is None), None)


def build_scheduler_factory(node: DictConfig) -> tuple[SchedulerFactory, str]:
    """Return a function that builds the configured scheduler, and its interval, `epoch` or `step`.

    The function takes an optimizer and the run's length in intervals, which replaces each of `LENGTH_OPTIONS`
    that is `null`.

    Raises:
        BoneAgeError: another interval, or `interval=step` for a plateau scheduler.
    """
    options = _to_plain(node)
    interval = options.pop("interval", "epoch")
    if interval not in ("epoch", "step"):
        raise BoneAgeError(f"scheduler.interval={interval}: it must be epoch or step.")
    if interval == "step" and options.get("_target_") == PLATEAU_SCHEDULER:
        raise BoneAgeError("scheduler.interval=step: ReduceLROnPlateau steps after a validation. Use epoch.")

    def build(optimizer: Optimizer, length: int) -> Any:
        given = {k: length if v is None and k in LENGTH_OPTIONS else v for k, v in options.items()}
        return instantiate_partial(OmegaConf.create(given), "scheduler")(optimizer)

    return build, interval


def warmup_cosine(
    optimizer: Optimizer,
    total_steps: int,
    warmup_fraction: float = 0.05,
    restart: float | None = None,
    restart_factor: float = 0.5,
) -> LRScheduler:
    """Return a schedule of a linear warm-up from near 0, then half a cosine down to 0; once or twice.

    Loshchilov and Hutter, SGDR, ICLR 2017; the warm-up as Goyal et al., 2017.

    Args:
        optimizer: its groups have their peak rates.
        total_steps: of the run.
        warmup_fraction: fraction of each cycle's steps for the warm-up.
        restart: fraction of the run after which a second cycle begins; `None` for a single one.
        restart_factor: peak rate of the second cycle, relative to the first's.
    """
    for name, fraction in (("warmup_fraction", warmup_fraction), ("restart", restart or 0.0)):
        if not 0 <= fraction < 1:
            raise ValueError(f"{name}={fraction}: it must be at least 0 and below 1")
    first = round(restart * total_steps) if restart else total_steps

    def factor(step: int) -> float:
        second = first <= step and first < total_steps
        start, length, peak = (first, total_steps - first, restart_factor) if second else (0, first, 1.0)
        warmup, at = round(warmup_fraction * length), step - start
        if at < warmup:
            return peak * (at + 1) / (warmup + 1)
        return peak * (1 + math.cos(math.pi * (at - warmup) / max(length - warmup, 1))) / 2

    return LambdaLR(optimizer, factor)


def _to_plain(node: DictConfig) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(node, resolve=True))
