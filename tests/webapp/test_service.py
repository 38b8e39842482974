"""Queued requests are predicted in one batch, and an error affects only its own request."""

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from boneage_pl.prediction.types import Prediction, PredictionRequest, PredictionResult
from boneage_pl.webapp.service import PredictionService


class Panic(BaseException):
    """Like the panic of a decoder in another language."""


class Model:
    """Predicts an image's number as months; panics at "bad"."""

    def __init__(self, seconds: float = 0) -> None:
        self.batches: list[int] = []
        self.seconds = seconds

    def predict_iter(self, requests: Iterable[PredictionRequest]) -> Iterator[PredictionResult]:
        listed = list(requests)
        self.batches.append(len(listed))
        time.sleep(self.seconds)
        for request in listed:
            if request.image == "bad":
                raise Panic("damaged")
            yield PredictionResult(request, Prediction(str(request.image), False, float(request.image)), {})


def test_fault_is_raised_where_it_belongs_and_others_are_predicted():
    model: Any = Model()
    service = PredictionService(model, 0.9)

    def one(image: str) -> float | str | None:
        try:
            return service.predict([PredictionRequest(image, False)])[0].prediction.months
        except RuntimeError:
            return "panic"

    names = ["1", "bad", "2", "3", "bad", "4"] * 5
    with ThreadPoolExecutor(len(names)) as people:
        found = list(people.map(one, names))
    assert found == ["panic" if name == "bad" else float(name) for name in names]
    assert one("7") == 7  # the thread continues


def test_long_lists_take_turns():
    model: Any = Model()
    service = PredictionService(model, 0.9)
    results = list(service.predict_many(PredictionRequest(str(n), False) for n in range(40)))
    assert [result.prediction.months for result in results] == pytest.approx(range(40))
    assert model.batches == [16, 16, 8]


def test_clients_that_were_served_together_share_the_next_batch_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("boneage_pl.webapp.service._MAX_WAIT", 1)  # on any machine
    model: Any = Model(seconds=0.05)
    service = PredictionService(model, 0.9)

    def client(_: int) -> None:
        for _ in range(5):
            service.predict([PredictionRequest("1", False)])

    with ThreadPoolExecutor(8) as people:
        list(people.map(client, range(8)))
    assert sum(model.batches) == 40
    # without waiting, one client would alternate with the seven others
    assert model.batches.count(1) <= 2, model.batches
