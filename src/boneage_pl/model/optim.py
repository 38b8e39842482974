"""Parameter groups, optimizer and learning-rate schedule."""

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from boneage_pl.cli.instantiate import instantiate_partial
from boneage_pl.errors import BoneAgeError

LENGTH_OPTIONS = (
    "total_steps",
    "T_max",
    "total_iters",
)  # schedulers' options that `null` makes the run's length
PLATEAU_SCHEDULER = "torch.optim.lr_scheduler.ReduceLROnPlateau"

OptimizerFactory = Callable[[nn.Module], Optimizer]
SchedulerFactory = Callable[[Optimizer, int], Any]


def build_optimizer_factory(node: DictConfig) -> OptimizerFactory:
    """Return a function that builds the configured optimizer for a network.

    `groups` sets options by prefixes of parameter names: `groups: {backbone: {lr: 0.0001}}`. `layer_decay` is
    the factor of the rate from each stage of the network's first part, its backbone, to the one before it.
    `no_decay_1d` exempts parameters of one dimension from weight decay: biases, and the scales and shifts
    of norms. `state` is not the optimizer's: see `load_optimizer_state`.

    Raises:
        BoneAgeError: a `layer_decay` that is no factor.
    """
    options = _to_plain(node)
    options.pop("state", None)
    groups: dict[str, dict[str, Any]] = options.pop("groups", None) or {}
    no_decay_1d, decay = bool(options.pop("no_decay_1d", False)), options.pop("layer_decay", None) or 1.0
    if not 0 < decay <= 1:
        raise BoneAgeError(f"optimizer.layer_decay={decay}: it is a factor above 0, and 1 at most.")
    make = instantiate_partial(OmegaConf.create(options), "optimizer")

    def of(network: nn.Module) -> Optimizer:
        if not groups and not no_decay_1d and decay == 1:
            return make(network.parameters())
        factors = _layer_decay_factors(network, decay) if decay < 1 else {}
        found = []
        for group in _group_parameters(network, groups):
            found += _split_by_rate_and_decay(group, options.get("lr"), factors, no_decay_1d)
        return make(found)

    return of


def load_optimizer_state(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Load an optimizer's moments and step counts, keeping the learning rate and the other options.

    Args:
        optimizer: of the same class, with the same parameters.
        state: what `Optimizer.state_dict` returned.

    Raises:
        BoneAgeError: its parameter groups are others.
    """
    ours = optimizer.state_dict()["param_groups"]
    sizes, theirs = ([len(group["params"]) for group in groups] for groups in (ours, state["param_groups"]))
    if sizes != theirs:
        raise BoneAgeError(
            f"optimizer.state=checkpoint: its parameter groups have {theirs} parameters, this run's {sizes}."
        )
    optimizer.load_state_dict({"state": deepcopy(state["state"]), "param_groups": ours})


def _layer_decay_factors(network: nn.Module, decay: float) -> dict[nn.Parameter, float]:
    """Return the factor of the rate of each parameter of a network's first part.

    A stage begins with a matrix or filter of another module, or of another block of it: of `blocks.1`, say.
    """
    _, first = next(network.named_children())
    stages: list[str] = []
    stage_of = {}
    for name, parameter in first.named_parameters():
        parts = name.split(".")
        stage = ".".join(parts[: 2 if len(parts) > 1 and parts[1].isdigit() else 1])
        if not stages or (stage != stages[-1] and parameter.dim() > 1):
            stages.append(stage)
        stage_of[parameter] = len(stages)
    return {parameter: decay ** (len(stages) + 1 - stage) for parameter, stage in stage_of.items()}


def _split_by_rate_and_decay(
    group: dict[str, Any], lr: float | None, factors: dict[nn.Parameter, float], no_decay_1d: bool
) -> list[dict[str, Any]]:
    """Divide a group of parameters into those of one rate and one decay, in the order that they come in."""
    options = {key: value for key, value in group.items() if key != "params"}
    rate = options.get("lr", lr)
    buckets: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for parameter in group["params"]:
        buckets.setdefault((factors.get(parameter, 1.0), no_decay_1d and parameter.dim() < 2), []).append(
            parameter
        )
    return [
        {
            "params": parameters,
            **options,
            **({"lr": rate * factor} if factor != 1 and rate is not None else {}),
            **({"weight_decay": 0.0} if vectors else {}),
        }
        for (factor, vectors), parameters in buckets.items()
    ]


def _to_plain(node: DictConfig) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(node, resolve=True))


def _group_parameters(network: nn.Module, groups: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a network's parameters as PyTorch takes groups: first those that no group names."""
    named: dict[str | None, list[nn.Parameter]] = {name: [] for name in (None, *groups)}
    for name, parameter in network.named_parameters():
        fits = [begins for begins in groups if f"{name}.".startswith(f"{begins}.")]
        named[max(fits, key=len, default=None)].append(parameter)
    if empty := [begins for begins in groups if not named[begins]]:
        there = ", ".join(name for name, _ in network.named_children())
        raise BoneAgeError(
            f"optimizer.groups.{empty[0]}: no parameter's name begins so. The network's parts: {there}."
        )
    parameter_groups: list[dict[str, Any]] = [{"params": named[None]}] if named[None] else []
    return [*parameter_groups, *({"params": named[begins], **options} for begins, options in groups.items())]


def length_option(node: Any) -> str | None:
    """Return the first option of a scheduler's configuration that `null` makes the run's length, if any."""
    items = node.items() if isinstance(node, Mapping) else enumerate(node or ())
    for key, value in items:
        if value is None and key in LENGTH_OPTIONS:
            return str(key)
        inside = isinstance(value, Mapping | Sequence) and not isinstance(value, str)
        if inside and (found := length_option(value)):
            return found
    return None


def build_scheduler_factory(node: DictConfig) -> tuple[SchedulerFactory, str]:
    """Return what makes the configured scheduler of an optimizer and of the run's length, and its interval.

    `interval`, `epoch` or `step`, says when it goes on; the run's length is counted in it, and is what each
    option of `LENGTH_OPTIONS` becomes that is `null`. `schedulers`, of those made of others, are made first.

    Raises:
        BoneAgeError: another interval, or a plateau that is to be looked for after a step.
    """
    options = _to_plain(node)
    interval = options.pop("interval", "epoch")
    if interval not in ("epoch", "step"):
        raise BoneAgeError(f"scheduler.interval={interval}: there are two, epoch and step.")
    if interval == "step" and options.get("_target_") == PLATEAU_SCHEDULER:
        raise BoneAgeError("scheduler.interval=step: a plateau is one of validations, which follow an epoch.")

    def make(options: dict[str, Any], optimizer: Optimizer, length: int) -> Any:
        whole: dict[str, Any] = {
            k: length if v is None and k in LENGTH_OPTIONS else v for k, v in options.items()
        }
        if "schedulers" not in whole:
            return instantiate_partial(OmegaConf.create(whole), "scheduler")(optimizer)
        schedulers: list[dict[str, Any]] = whole.pop("schedulers")
        parts = [make(part, optimizer, length) for part in schedulers]
        return instantiate_partial(OmegaConf.create(whole), "scheduler")(
            optimizer=optimizer, schedulers=parts
        )

    return lambda optimizer, length: make(options, optimizer, length), interval


class WarmupCosine:
    """Learning-rate factor by step: linear from near 0 to 1, then half a cosine to `min_lr_ratio`.

    Loshchilov and Hutter, SGDR, ICLR 2017; the warm-up as Goyal et al., 2017.

    Args:
        total: steps of the run.
        warmup_steps: steps of them until the factor is 1.
        min_lr_ratio: factor of the last step.
    """

    def __init__(self, total: int, warmup_steps: int, min_lr_ratio: float) -> None:
        self.total, self.rising, self.least = total, warmup_steps, min_lr_ratio

    def __call__(self, step: int) -> float:
        """Return the factor of a step, counted from 0."""
        if step < self.rising:
            return (step + 1) / (self.rising + 1)
        done = min((step - self.rising) / max(self.total - 1 - self.rising, 1), 1.0)
        return self.least + (1 - self.least) * (1 + math.cos(math.pi * done)) / 2


def warmup_cosine(
    optimizer: Optimizer, total_steps: int, warmup_fraction: float = 0.05, min_lr_ratio: float = 0.01
) -> LambdaLR:
    """Return the scheduler of a run of `total_steps`.

    Args:
        optimizer: its groups' rates are the highest that they reach.
        total_steps: of the run.
        warmup_fraction: share of them in which the rates rise.
        min_lr_ratio: share of its highest rate that each ends at.
    """
    if not 0 <= warmup_fraction < 1 or not 0 <= min_lr_ratio <= 1:
        raise ValueError(f"warm_up={warmup_fraction} and least={min_lr_ratio} are shares of 1")
    return LambdaLR(optimizer, WarmupCosine(total_steps, round(warmup_fraction * total_steps), min_lr_ratio))
