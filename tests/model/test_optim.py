from io import BytesIO
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from boneage_pl.cli import CONF_DIR
from boneage_pl.errors import BoneAgeError
from boneage_pl.model.backbone_regressor import BackboneRegressor
from boneage_pl.model.optim import (
    base_lr,
    build_optimizer_factory,
    build_scheduler_factory,
    length_option,
    load_optimizer_state,
    warmup_cosine,
)

PYTORCH = "torch.optim.lr_scheduler."
SCHEDULERS: dict[str, dict[str, Any]] = {
    "StepLR": {"step_size": 3},
    "MultiStepLR": {"milestones": [2, 4]},
    "ConstantLR": {},
    "LinearLR": {"total_iters": None},
    "ExponentialLR": {"gamma": 0.9},
    "PolynomialLR": {"total_iters": None, "power": 2},
    "CosineAnnealingLR": {"T_max": None},
    "CosineAnnealingWarmRestarts": {"T_0": 4},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.1, "cycle_momentum": False},
    "OneCycleLR": {"max_lr": 0.1, "total_steps": None, "interval": "step"},
    "warmup_cosine": {"total_steps": None, "warmup_fraction": 0.3, "restart": 0.6},
}


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))


def test_plateau_halves_rate_after_six_epochs():
    make, _ = build_scheduler_factory(OmegaConf.load(CONF_DIR / "scheduler" / "plateau.yaml"))
    optimizer = torch.optim.Adam(network().parameters(), lr=0.001)
    plateau = make(optimizer, 40)
    rates = []
    for mae in (7.0, *[7.5] * 6):
        plateau.step(mae)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [0.001] * 6 + [0.0005]


def test_optimizer_state_loads_and_keeps_rate():
    trained, fresh = network(), network()
    before = torch.optim.Adam(trained.parameters(), lr=0.01)
    for _ in range(3):
        trained(torch.rand(4, 2)).sum().backward()
        before.step()
    optimizer = torch.optim.Adam(fresh.parameters(), lr=0.001, fused=True)
    load_optimizer_state(optimizer, before.state_dict())
    moments = [optimizer.state[p]["exp_avg_sq"] for p in fresh.parameters()]
    for ours, theirs in zip(
        moments, (before.state[p]["exp_avg_sq"] for p in trained.parameters()), strict=True
    ):
        assert torch.equal(ours, theirs)
        assert ours.data_ptr() != theirs.data_ptr()
    assert {float(state["step"]) for state in optimizer.state.values()} == {3}
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["fused"]) == (0.001, True)
    fresh(torch.rand(4, 2)).sum().backward()
    optimizer.step()
    groups = [{"params": part.parameters()} for part in (fresh[0], fresh[1:])]
    with pytest.raises(BoneAgeError, match=r"optimizer\.state=checkpoint: its parameter groups"):
        load_optimizer_state(torch.optim.Adam(groups, lr=0.001), before.state_dict())


@pytest.mark.parametrize("name", SCHEDULERS)
def test_pytorch_scheduler_resumes_from_plain_values(name: str):
    module = "boneage_pl.model.optim." if name == "warmup_cosine" else PYTORCH
    make, _ = build_scheduler_factory(OmegaConf.create({"_target_": f"{module}{name}", **SCHEDULERS[name]}))

    def begun() -> tuple[torch.optim.Optimizer, Any]:
        optimizer = torch.optim.Adam(network().parameters(), lr=0.1)
        return optimizer, make(optimizer, 8)

    def rates(optimizer: torch.optim.Optimizer, scheduler: Any, steps: int) -> list[float]:
        found = []
        for _ in range(steps):
            optimizer.step()
            scheduler.step()
            found.append(optimizer.param_groups[0]["lr"])
        return found

    whole = rates(*begun(), 7)
    optimizer, scheduler = begun()
    first = rates(optimizer, scheduler, 3)
    file = BytesIO()
    torch.save((optimizer.state_dict(), scheduler.state_dict()), file)
    file.seek(0)
    states = torch.load(file, weights_only=True)
    again = begun()
    for part, state in zip(again, states, strict=True):
        part.load_state_dict(state)
    assert first + rates(*again, 4) == whole
    assert len(set(whole)) > 1


def test_whole_run_schedule_ends_with_run():
    make, interval = build_scheduler_factory(
        OmegaConf.create({"_target_": f"{PYTORCH}LinearLR", "total_iters": None})
    )
    optimizer = torch.optim.SGD(network().parameters(), lr=0.3)
    scheduler = make(optimizer, 6)
    for _ in range(6):
        assert optimizer.param_groups[0]["lr"] < 0.3
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.3)
    assert interval == "epoch"


def test_length_option_is_found():
    assert length_option(OmegaConf.create(SCHEDULERS["CosineAnnealingLR"])) == "T_max"
    assert length_option(OmegaConf.create({"total_steps": 100, "milestones": [1]})) is None
    assert length_option(None) is None


def options_of(network: nn.Module, **options: Any) -> dict[str, tuple[float, float]]:
    named = {parameter: name for name, parameter in network.named_parameters()}
    node = OmegaConf.create({"_target_": "torch.optim.AdamW", "lr": 1.0, "weight_decay": 0.1, **options})
    optimizer = build_optimizer_factory(node)(network)
    assert type(optimizer.state_dict()["param_groups"][0]["betas"]) in (
        list,
        tuple,
    )  # no OmegaConf containers
    return {
        named[parameter]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_no_decay_1d_exempts_biases_and_norms(layer_decay: float):
    network = BackboneRegressor("test_efficientnet", 64)
    found = options_of(network, no_decay_1d=True, layer_decay=layer_decay)
    sizes = {name: parameter.ndim for name, parameter in network.named_parameters()}
    assert found.keys() == sizes.keys()
    assert all((decay > 0) == (sizes[name] > 1) for name, (_, decay) in found.items())


@pytest.mark.parametrize("backbone", ["test_efficientnet", "densenet121", "test_vit", "regnety_002"])
def test_layer_decay_scales_rates_by_timms_layers(backbone: str):
    network = BackboneRegressor(
        backbone, 64, backbone_kwargs={"dynamic_img_size": True} if "vit" in backbone else {}
    )
    found = options_of(network, layer_decay=0.5, fused=False)
    rates = [rate for rate, _ in found.values()]
    assert found["age.weight"] == found["sex.bias"] == (1, 0.1)
    assert len(found) == len(list(network.parameters()))
    assert len(set(rates)) > 3
    assert next(rate for name, (rate, _) in found.items() if name.startswith("backbone.")) == min(rates)


def test_layer_decay_of_other_networks_is_refused():
    with pytest.raises(BoneAgeError, match=r"optimizer\.layer_decay: .*model=backbone"):
        options_of(network(), layer_decay=0.5)


def rates(total: int, warm_up: float, **restart: float) -> list[list[float]]:
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": [parameters[0]]}, {"params": [parameters[1]], "lr": 0.1}], lr=1.0)
    scheduler = warmup_cosine(optimizer, total, warm_up, **restart)
    found = []
    for _ in range(total):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return found


def test_warmup_cosine_keeps_group_ratios():
    found = rates(100, 0.2)
    first = [one for one, _ in found]
    assert first[:20] == pytest.approx([(k + 1) / 21 for k in range(20)])
    assert first[20] == pytest.approx(1.0)
    assert first[60] == pytest.approx(0.5)  # in the middle of the decay
    assert 0 < first[99] < 0.001
    assert sorted(first[20:], reverse=True) == first[20:]
    assert [other for _, other in found] == pytest.approx([one / 10 for one in first])


def test_warmup_cosine_without_warmup_starts_at_top():
    assert rates(2, 0.0) == [pytest.approx([1.0, 0.1]), pytest.approx([0.5, 0.05])]


def test_warmup_cosine_restarts_as_a_shorter_run_would():
    found = rates(50, 0.2, restart=0.6, restart_factor=0.5)
    assert found[:30] == rates(30, 0.2)
    assert found[30:] == [[rate / 2 for rate in both] for both in rates(20, 0.2)]


@pytest.mark.parametrize(
    "options", [{"warm_up": 1.0}, {"warm_up": -0.1}, {"warm_up": 0.1, "restart": 1.0}], ids=str
)
def test_warmup_cosine_invalid_fractions_are_refused(options: dict[str, float]):
    with pytest.raises(ValueError, match=list(options)[-1].replace("warm_up", "warmup_fraction")):
        rates(10, **options)


def test_logged_rate_is_the_highest_of_the_groups():
    network = BackboneRegressor("test_efficientnet", 64)
    node = OmegaConf.create({"_target_": "torch.optim.AdamW", "lr": 0.3, "layer_decay": 0.5})
    assert base_lr(build_optimizer_factory(node)(network)) == 0.3
