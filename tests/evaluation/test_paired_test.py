from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from boneage_pl.errors import BoneAgeError
from boneage_pl.evaluation.breakdown import predictions_frame
from boneage_pl.evaluation.paired_test import compare_predictions, read_predictions_csv

ASKED = pd.DataFrame({"id": ["001", "2", "2"], "male": True, "bone_age": [50.0, 60.0, 60.0]})


def test_predictions_are_matched_by_id(tmp_path: Path):
    (tmp_path / "p.csv").write_text("id,predicted,bone_age\n2,61,60.4\n001,55.5,50\n7,1,2\n2,61,60.4\n")
    assert read_predictions_csv(tmp_path / "p.csv", ASKED).to_dict() == {"001": 55.5, "2": 61.0}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("case,months\n1,2\n", "lacks id and predicted; its columns are case, months"),
        ("id,predicted\n2,old\n", "1 predictions are no numbers (id 2)"),
        ("id,predicted,bone_age\n2,61,5 years\n", "1 bone ages are no numbers (id 2)"),
        ("id,predicted\n2,61\n2,62\n", "several predictions for one image (id 2 first)"),
        ("id,predicted\n1,61\n", "has none of the evaluated images: its ids are like 1, these like 001"),
        (
            "id,predicted,bone_age\n2,61,160\n",
            "another bone age for 1 of the 1 images (id 2: 160 and here",
        ),
        ("", "cannot be read as a table"),
    ],
)
def test_invalid_file_is_refused(tmp_path: Path, content: str, said: str):
    (tmp_path / "p.csv").write_text(content)
    with pytest.raises(BoneAgeError) as error:
        read_predictions_csv(tmp_path / "p.csv", ASKED)
    assert said in str(error.value)


def test_comparison_uses_common_images():
    rng = np.random.default_rng(0)
    ids, ages = [str(n) for n in range(60)], rng.uniform(1, 228, 60)
    rows = pd.DataFrame({"id": ids, "male": True, "bone_age": ages})
    answers = predictions_frame(rows, ages + rng.normal(0, 5, 60), [1.0, 228.0], {}, set())
    worse = pd.Series(ages + rng.normal(0, 20, 60), ids)[:40]
    found = compare_predictions(answers, "other", worse)
    assert (found["images"], found["all"]) == (40, False)
    difference = found["this"]["mae"]["value"] - found["other"]["mae"]["value"]
    assert found["difference"]["value"] == pytest.approx(difference)
    assert found["difference"]["high"] < 0
    assert found["p"] < 0.01
    assert compare_predictions(answers, "few", worse[:10])["difference"] is None
