import pytest
from torch import nn
from torch.optim.swa_utils import AveragedModel

from boneage_pl.model.averaging import EMAWeights


def averaged(values: list[float], decay: float) -> nn.BatchNorm1d:
    """What the callback's averaging makes of a network whose every number was each of these in turn."""
    network = nn.BatchNorm1d(1)
    average = AveragedModel(network)
    for steps, value in enumerate(values):
        for number in (*network.parameters(), *network.buffers()):
            number.data.fill_(value)
        EMAWeights(decay).update(average, network, steps)
    assert average.n_averaged == len(values)
    return average.module


def test_the_latest_weigh_most_and_batchnorms_statistics_are_averaged_too():
    found = averaged([0.0, *[8.0] * 200], decay=0.9)
    for number in (found.weight, found.bias, found.running_mean, found.running_var):
        assert 7.99 < float(number) <= 8.0
    once_more = averaged([*[0.0] * 200, 10.0], decay=0.9)
    assert float(once_more.running_mean) == pytest.approx(1.0, rel=1e-4)


def test_its_memory_is_short_at_the_start():
    """With 0.999 from the first step on, nine tenths of the first weights would still be there after 100."""
    found = averaged([100.0, *[0.0] * 100], decay=0.999)
    assert float(found.weight) < 1


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_a_decay_that_forgets_nothing_or_more_than_all_is_refused(decay: float):
    with pytest.raises(ValueError, match="is no share below 1"):
        EMAWeights(decay)
