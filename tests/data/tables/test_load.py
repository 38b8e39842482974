import os
from pathlib import Path

import pandas as pd
import pytest

from boneage_pl.data.images.decode import read_image
from boneage_pl.data.tables.load import load_table, read_table
from boneage_pl.data.tables.spec import DatasetSpec
from boneage_pl.errors import BoneAgeError
from tests.conftest import write_rsna

TABLE = pd.DataFrame({"id": [1377, 1378, 1379], "boneage": [180, 12, 94], "male": ["False", "True", "False"]})


@pytest.mark.parametrize(
    ("images", "csv"),
    [
        ("boneage-training-dataset", "boneage-training-dataset.csv"),
        ("boneage-training-dataset/boneage-training-dataset", "boneage-training-dataset.csv"),
        ("boneage-training-dataset", "train.csv"),
        ("some/where/else", "my table.csv"),
        (".", "ages.csv"),
    ],
)
def test_layouts(tmp_path: Path, images: str, csv: str):
    folder = tmp_path / "deeper"
    if images == ".":
        (folder / "x").mkdir(parents=True)
        write_rsna(folder, TABLE, folder / "x" / "y", csv)
    else:
        write_rsna(folder, TABLE, folder / images, csv)
    table = read_table(tmp_path)
    assert table["id"].tolist() == ["1377", "1378", "1379"]
    assert table["bone_age"].tolist() == [180, 12, 94]
    assert table["male"].tolist() == [False, True, False]
    assert all(Path(path).stem == i for path, i in zip(table["path"], table["id"], strict=True))


def test_kaggle_archive_ignores_test_set(tmp_path: Path):
    """Kaggle's archive brings a second table, without ages, and a second folder of images."""
    write_rsna(tmp_path, TABLE, tmp_path / "boneage-training-dataset" / "boneage-training-dataset")
    test = pd.DataFrame({"Case ID": [4360], "Sex": ["M"]})
    test.to_csv(tmp_path / "boneage-test-dataset.csv", index=False)
    assert len(read_table(tmp_path)) == 3


@pytest.mark.parametrize(
    "coding", [["False", "True", "False"], ["0", "1", "0"], ["F", "M", "F"], ["f", "TRUE", "female"]]
)
def test_sex_codings(tmp_path: Path, coding: list[str]):
    write_rsna(tmp_path, TABLE.assign(male=coding))
    assert read_table(tmp_path)["male"].tolist() == [False, True, False]


def test_bad_rows_are_reported_together(tmp_path: Path):
    write_rsna(tmp_path, TABLE)
    (tmp_path / "boneage-training-dataset.csv").write_text(
        "id,boneage,male\n1377,180,False\n1377,100,True\n1378,old,True\n1379,999,False\n1380,50,maybe\n,3,True\n../x,5,True\n"
    )
    with pytest.raises(BoneAgeError) as error:
        read_table(tmp_path)
    text = str(error.value)
    for said in (
        "2 × row with an id that another row has with another age or sex: "
        "line 2 (1377,180,False), line 3 (1377,100,True)",
        "1 × row with a bone age that is not a number: line 4 (1378,old,True)",
        "1 × row with a bone age outside 0 to 240 months: line 5",
        "1 × row with a sex that is none of True/False, 1/0, M/F: line 6",
        "1 × row with an empty id: line 7",
        "1 × row with an id that is not a plain file name: line 8",
    ):
        assert said in text


def test_missing_images_are_counted_and_ten_named(tmp_path: Path):
    write_rsna(tmp_path, TABLE)
    more = pd.DataFrame({"id": range(1, 16), "boneage": 50, "male": True})
    pd.concat([TABLE, more]).to_csv(tmp_path / "boneage-training-dataset.csv", index=False)
    with pytest.raises(BoneAgeError) as error:
        read_table(tmp_path)
    text = str(error.value)
    assert "15 × row without its image under" in text
    assert "1.png, 2.png" in text
    assert "10.png" in text
    assert "11.png" not in text
    assert "(15 in all)" in text


def test_no_data_error_has_five_lines(tmp_path: Path):
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(BoneAgeError) as error:
            read_table(root)
        text = str(error.value)
        assert len(text.splitlines()) <= 5
        for said in (str(root), "RSNA", "kmader/rsna-bone-age", "data=phantom", "BONEAGE_DATA"):
            assert said in text


def test_ambiguous_tables_or_images_are_refused(tmp_path: Path):
    write_rsna(tmp_path, TABLE, csv="a.csv")
    TABLE.to_csv(tmp_path / "b.csv", index=False)
    with pytest.raises(BoneAgeError, match=r"holds 2 tables .*a.csv, b.csv"):
        read_table(tmp_path)
    (tmp_path / "b.csv").unlink()
    copy = tmp_path / "boneage-training-dataset" / "copy"
    copy.mkdir()
    (copy / "1377.png").write_bytes((copy.parent / "1377.png").read_bytes())
    with pytest.raises(BoneAgeError, match="1 × id with more than one image"):
        read_table(tmp_path)
    copy = tmp_path / "copy"
    write_rsna(copy, TABLE, csv="train.csv")
    TABLE.assign(boneage=5).to_csv(tmp_path / "train.csv", index=False)
    with pytest.raises(BoneAgeError, match="holds 2 tables"):
        read_table(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfid,boneage,male\r\n1377,180,False\r\n1378,12,True\r\n",
        b'"id","boneage","male"\n"1377","180","False"\n"1378","12","True"\n',
        b"id;boneage;male\n1377;180,0;False\n1378;12,0;True\n",
        b"ID\tBoneAge\tMale\tname\n1377\t180\tFalse\tM\xfcller\n\n1378\t12\tTrue\tx\n\n",
        "id,boneage,male\n1377,180,False\n1378,12,True\n".encode("utf-16"),
        b"id,boneage,male\n1377,180,0.0\n1378,12,1.0\n1378,12,1.0",
    ],
)
def test_spreadsheet_tables_are_read(tmp_path: Path, content: bytes):
    write_rsna(tmp_path, TABLE)
    (tmp_path / "boneage-training-dataset.csv").write_bytes(content)
    table, problems = load_table(DatasetSpec(tmp_path))
    assert table["id"].tolist() == ["1377", "1378"]
    assert table["bone_age"].tolist() == [180, 12]
    assert table["male"].tolist() == [False, True]
    assert [p.reason for p in problems.issues] == (
        ["row that repeats another"] if content[-3:] == b"1.0" else []
    )


def test_reported_line_numbers_count_blank_lines(tmp_path: Path):
    write_rsna(tmp_path, TABLE)
    (tmp_path / "boneage-training-dataset.csv").write_text("id,boneage,male\n\n1377,,False\n1378,120,True\n")
    with pytest.raises(BoneAgeError, match=r"1 × row with an empty bone age: line 3 \(1377,,False\)"):
        read_table(tmp_path)


def test_pipe_is_not_read(tmp_path: Path):
    write_rsna(tmp_path, TABLE)
    os.mkfifo(tmp_path / "pipe.csv")
    image = tmp_path / "boneage-training-dataset" / "1377.png"
    image.unlink()
    os.mkfifo(image)
    assert len(read_table(tmp_path)) == 3
    with pytest.raises(BoneAgeError, match=r"1377\.png: no plain file"):
        read_image(image)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,boneage,male\n1377,180,False,\n", None),
        ("id,boneage,male,ID\n1377,180,False,2\n", "more than one column could be an id: id, ID"),
        ("id,boneage,id,male\n1377,180,2,False\n", "more than one column called id"),
        ("id,boneage,male\n", "it has no rows"),
        ("id,boneage,male\n1377,15,False\n1378,1,True\n", "these look like years"),
    ],
)
def test_odd_tables(tmp_path: Path, text: str, said: str | None):
    write_rsna(tmp_path, TABLE)
    (tmp_path / "boneage-training-dataset.csv").write_text(text)
    (tmp_path / "dangling.csv").symlink_to(tmp_path / "nowhere")
    if said is None:
        assert read_table(tmp_path)["bone_age"].tolist() == [180]
        return
    with pytest.raises(BoneAgeError, match=said):
        read_table(tmp_path)
