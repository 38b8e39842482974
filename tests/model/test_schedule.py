import pytest
import torch
from torch import nn

from boneage_pl.model.schedule import warmup_cosine


def rates(total: int, warm_up: float, least: float) -> list[list[float]]:
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": [parameters[0]]}, {"params": [parameters[1]], "lr": 0.1}], lr=1.0)
    scheduler = warmup_cosine(optimizer, total, warm_up, least)
    found = []
    for _ in range(total):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return found


def test_it_rises_in_a_line_and_falls_along_a_cosine_with_the_groups_in_proportion():
    found = rates(101, 0.2, 0.1)
    first = [one for one, _ in found]
    assert first[:20] == pytest.approx([(k + 1) / 21 for k in range(20)])
    assert first[20] == 1.0
    assert first[60] == pytest.approx(0.55)  # half of the way down
    assert first[100] == pytest.approx(0.1)
    assert sorted(first[20:], reverse=True) == first[20:]
    assert [other for _, other in found] == pytest.approx([one / 10 for one in first])


def test_without_a_warm_up_it_begins_at_the_highest():
    assert rates(3, 0.0, 0.0) == [[1.0, 0.1], [0.5, 0.05], [0.0, 0.0]]


@pytest.mark.parametrize(("warm_up", "least"), [(1.0, 0.0), (-0.1, 0.0), (0.1, 2.0)])
def test_shares_that_are_none_are_refused(warm_up: float, least: float):
    with pytest.raises(ValueError, match="are shares of 1"):
        rates(10, warm_up, least)
