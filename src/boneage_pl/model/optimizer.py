"""Optimisers with groups of parameters, and schedules that know how long a run is, from a configuration."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.optim import Optimizer

from boneage_pl.cli.building import partial_of
from boneage_pl.errors import BoneageError

WHOLE_RUN = ("total_steps", "T_max", "total_iters")  # schedulers' options that `null` makes the run's length
PLATEAU = "torch.optim.lr_scheduler.ReduceLROnPlateau"

MakeOptimizer = Callable[[nn.Module], Optimizer]
MakeScheduler = Callable[[Optimizer, int], Any]


def optimizer_of(node: DictConfig) -> MakeOptimizer:
    """Return what makes the configured optimiser of a network.

    `groups` gives parameters options of their own, by the beginnings of their names:
    `groups: {backbone: {lr: 0.0001}}`.
    """
    options = _plain(node)
    groups: dict[str, dict[str, Any]] | None = options.pop("groups", None)
    make = partial_of(OmegaConf.create(options), "optimizer")
    return lambda network: make(_grouped(network, groups) if groups else network.parameters())


def _plain(node: DictConfig) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(node, resolve=True))


def _grouped(network: nn.Module, groups: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a network's parameters as PyTorch takes groups: first those that no group names."""
    named: dict[str | None, list[nn.Parameter]] = {name: [] for name in (None, *groups)}
    for name, parameter in network.named_parameters():
        fits = [begins for begins in groups if f"{name}.".startswith(f"{begins}.")]
        named[max(fits, key=len, default=None)].append(parameter)
    if empty := [begins for begins in groups if not named[begins]]:
        there = ", ".join(name for name, _ in network.named_children())
        raise BoneageError(
            f"optimizer.groups.{empty[0]}: no parameter's name begins so. The network's parts: {there}."
        )
    found: list[dict[str, Any]] = [{"params": named[None]}] if named[None] else []
    return [*found, *({"params": named[begins], **options} for begins, options in groups.items())]


def whole_run_option(node: Any) -> str | None:
    """Return the first option of a scheduler's configuration that `null` makes the run's length, if any."""
    items = node.items() if isinstance(node, Mapping) else enumerate(node or ())
    for key, value in items:
        if value is None and key in WHOLE_RUN:
            return str(key)
        inside = isinstance(value, Mapping | Sequence) and not isinstance(value, str)
        if inside and (found := whole_run_option(value)):
            return found
    return None


def scheduler_of(node: DictConfig) -> tuple[MakeScheduler, str]:
    """Return what makes the configured scheduler of an optimiser and of the run's length, and its interval.

    `interval`, `epoch` or `step`, says when it goes on; the run's length is counted in it, and is what each
    option of `WHOLE_RUN` becomes that is `null`. `schedulers`, of those made of others, are made first.

    Raises:
        BoneageError: another interval, or a plateau that is to be looked for after a step.
    """
    options = _plain(node)
    interval = options.pop("interval", "epoch")
    if interval not in ("epoch", "step"):
        raise BoneageError(f"scheduler.interval={interval}: there are two, epoch and step.")
    if interval == "step" and options.get("_target_") == PLATEAU:
        raise BoneageError("scheduler.interval=step: a plateau is one of validations, which follow an epoch.")

    def make(options: dict[str, Any], optimizer: Optimizer, length: int) -> Any:
        whole: dict[str, Any] = {k: length if v is None and k in WHOLE_RUN else v for k, v in options.items()}
        if "schedulers" not in whole:
            return partial_of(OmegaConf.create(whole), "scheduler")(optimizer)
        schedulers: list[dict[str, Any]] = whole.pop("schedulers")
        parts = [make(part, optimizer, length) for part in schedulers]
        return partial_of(OmegaConf.create(whole), "scheduler")(optimizer=optimizer, schedulers=parts)

    return lambda optimizer, length: make(options, optimizer, length), interval
