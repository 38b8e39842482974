import pandas as pd

from boneage_pl.evaluation.reference_results import TEST, identify_test_set


def test_test_set_is_known_by_its_ids():
    test = [str(n) for n in range(4360, 4560)]
    assert identify_test_set(pd.Series(test[::-1])) is TEST
    assert identify_test_set(test[:199]) is None
    assert identify_test_set([*test, "1377"]) is None
    assert identify_test_set(str(n) for n in range(1386, 2811)) is None  # as many as in the validation set
