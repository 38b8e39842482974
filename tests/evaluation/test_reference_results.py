from boneage_pl.evaluation.reference_results import TEST, VALIDATION, identify_test_set


def never(_: str) -> bool:
    return False


def test_test_sets_are_identified_by_count_and_ids():
    test = {str(n) for n in range(4360, 4560)}
    validation = {str(n) for n in range(1386, 1386 + 1425 * 9, 9)}
    assert identify_test_set(test, never) is TEST
    assert identify_test_set({*list(test)[:195]}, never) is TEST  # a few could not be read
    assert identify_test_set(validation, never) is VALIDATION


def test_other_images_are_no_test_set():
    test = {str(n) for n in range(4360, 4560)}
    assert identify_test_set({str(n) for n in range(1, 201)}, never) is None
    assert identify_test_set({f"hand-{n}" for n in range(200)}, never) is None
    assert identify_test_set({*list(test)[:100]}, never) is None
    assert identify_test_set(test, test.__contains__) is None  # which the checkpoint was trained on
