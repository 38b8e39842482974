"""Pictures are kept while they are looked at, and not for long."""

import time

from boneage_pl.page.kept import _MAX_ITEMS, TTLCache
from boneage_pl.page.uploads import MAX_AGE_SECONDS


def test_what_is_asked_for_stays_and_the_rest_goes():
    kept: TTLCache[str] = TTLCache()
    name = kept.put("hand")
    assert kept.get(name) == "hand"
    assert kept.get("guessed") is None
    assert kept.get(None) is None
    kept.expire(time.monotonic() + MAX_AGE_SECONDS - 10)
    assert kept.get(name) == "hand"
    kept.expire(time.monotonic() + MAX_AGE_SECONDS + 10)
    assert kept.get(name) is None
    other = kept.put("another")
    kept.drop(other)
    assert kept.get(other) is None


def test_of_too_many_the_oldest_goes():
    kept: TTLCache[int] = TTLCache()
    names = [kept.put(n) for n in range(_MAX_ITEMS)]
    assert kept.get(names[0]) == 0  # it was used
    kept.put(-1)
    assert kept.get(names[0]) == 0
    assert kept.get(names[1]) is None
