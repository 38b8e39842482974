"""Data sets of the same children are combined into one with a patient column."""

from pathlib import Path

from boneage_pl.data.tables.load import read_table
from experiments.combine_sets import combine
from experiments.make_test_split import write_set


def test_children_of_two_sets_are_patients_of_one(tmp_path: Path):
    for name, ids in (("small", "abc"), ("large", "bc")):
        (tmp_path / name).mkdir()
        for i in ids:
            (tmp_path / name / f"{i}.png").write_text(f"{name} {i}")
        rows = "".join(f"{i},{100 + k},M\n" for k, i in enumerate(ids))
        (tmp_path / name / "table.csv").write_text(f"id,boneage,sex\n{rows}")
    write_set(tmp_path / "both", combine([tmp_path / "small", tmp_path / "large", tmp_path / "large"]))
    table = read_table(tmp_path / "both").set_index("id")
    patients = {"a": "a", "b": "b", "c": "c", "b_1": "b", "c_1": "c", "b_2": "b", "c_2": "c"}
    assert table["patient"].to_dict() == patients
    contents = {i: Path(path).read_text() for i, path in table["path"].items()}
    assert contents["b"] == "small b"
    assert contents["b_1"] == contents["b_2"] == "large b"
    assert table.loc["c_2", "bone_age"] == 101
