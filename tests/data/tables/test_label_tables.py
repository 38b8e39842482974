"""Label tables of many layouts: what is read, and which option an error names."""

import os
import re
import shlex
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from openpyxl import Workbook
from PIL import Image

from boneage_pl.data.images.radiograph import load_radiograph
from boneage_pl.data.tables.columns import named_sexes
from boneage_pl.data.tables.load import load_table, match_images, read_table
from boneage_pl.data.tables.parse import LabelTable
from boneage_pl.data.tables.spec import DatasetSpec
from boneage_pl.data.tables.validate import parse_ages, parse_sexes
from boneage_pl.errors import BoneAgeError
from boneage_pl.prediction.inputs import requests_from_table

PAGE = Path(__file__).parents[3] / "docs" / "DATA.md"
PLAIN = "id,boneage,male\n1377,180,False\n1378,12,True\n"
ROWS = [("1377", 180, False), ("1378", 12, True)]
HEADER = ["id", "boneage", "sex"]
Content = str | bytes | Callable[[Path], object]


def write(root: Path, content: Content, *images: str) -> Path:
    """Write `table.csv`, or call `content` to write a table, and images."""
    for number, name in enumerate(images or ("images/1377.png", "images/1378.png")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((40, 40), 30 + number).save(root / name)
    if callable(content):
        content(root)
    else:
        (root / "table.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def load(folder: Path, **options: Any) -> list[tuple[str, float, bool]]:
    table, issues = load_table(DatasetSpec.from_options(**{"root": str(folder), **options}))
    if issues:
        raise issues.error()
    return list(zip(table["id"], table["bone_age"], table["male"], strict=True))


def xlsx(*, merge: str = "", **sheets: list[list[object]]) -> Callable[[Path], None]:
    """Return a function that writes `table.xlsx`."""

    def save(root: Path) -> None:
        book = Workbook()
        book.remove(book.active)
        for name, rows in sheets.items():
            sheet = book.create_sheet(name)
            for row in rows:
                sheet.append(row)
            if merge:
                sheet.merge_cells(merge)
        book.save(root / "table.xlsx")

    return save


def files(**contents: str | bytes) -> Callable[[Path], None]:
    def save(root: Path) -> None:
        for name, content in contents.items():
            path = root / name.replace("__", ".")
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return save


GIRL, BOY = [1377, 180, "F"], [1378, 12, "M"]
READ: dict[str, tuple[Content, dict[str, Any]]] = {
    "title with a line break": ('"Bone ages\nof our clinic",,\n' + PLAIN, {}),
    "header with a line break": ('ID,"Bone Age\n(months)",Sex\n1377,180,F\n1378,12,M\n', {}),
    "cell with a line break": ('id,boneage,male,note\n1377,180,False,"a\nb"\n1378,12,True,\n', {}),
    "title and blank line": ("Clinic, of 2024\n\n" + PLAIN, {}),
    "semicolons and decimal commas": ("sep=;\nid;boneage;sex\n1377;180,0;F\n1378;12,0;M\n", {}),
    "tabs": (PLAIN.replace(",", "\t"), {}),
    "empty cells at the end": ("id,boneage,male\n1377,180,False,\n1378,12,True,\n", {}),
    "UTF-8 with a byte order mark": (PLAIN.encode("utf-8-sig"), {}),
    "UTF-16": (PLAIN.encode("utf-16"), {}),
    "letters of Windows beside": (
        "id;boneage;sex;clinic\n1377;180;F;Köln\n1378;12;M;\n".encode("cp1252"),
        {},
    ),
    "text marks": ('id,boneage,male\n="1377",180,False\n\'1378,12,True\n', {}),
    "numbers with .0": ("id,boneage,male\n1377.0,180.0,0.0\n1378.0,12.0,1.0\n", {}),
    "words in a column that says female": ("id,boneage,female\n1377,180,F\n1378,12,M\n", {}),
    "ages with units": ("id,boneage,sex\n1377,180 mo,F\n1378,1y 0m,M\n", {}),
    "years and months": ("id,bone age (years),sex\n1377,15.0,F\n1378,12 months,M\n", {}),
    "named columns": (
        "Nr;Alter;Geschlecht\n1377;180;F\n1378;12;M\n",
        {"columns": {"id": "nr", "bone_age": "Alter", "male": "Geschlecht"}},
    ),
    "codes": (
        "id,boneage,sex\n1377,180,2\n1378,12,1\n",
        {"columns": {"sex_values": {1: "male", 2: "female"}}},
    ),
    "codes, as decimals": (
        "id,boneage,sex\n1377,180,2.0\n1378,12,1.0\n",
        {"columns": {"sex_values": {1.0: "male", 2.0: "female"}}},
    ),
    "codes, the other way": (
        "id,boneage,sex\n1377,180,女\n1378,12,男\n",
        {"columns": {"sex_values": {"male": "男", "female": "女"}}},
    ),
    "two ids, one of which finds images": (
        "id,filename,boneage,sex\n1,1377.png,180,F\n2,1378.png,12,M\n",
        {},
    ),
    "two ids, the same images": ("id,file,boneage,sex\n1377,1377.png,180,F\n1378,1378.png,12,M\n", {}),
    "paths of Windows": ("path,boneage,sex\nC:\\hands\\images\\1377.png,180,F\nimages\\1378.png,12,M\n", {}),
    "spreadsheet": (xlsx(ages=[[], ["Clinic"], [], HEADER, GIRL, BOY]), {}),
    "sheet called by a number": (xlsx(**{"1": [HEADER, BOY], "2": [HEADER, GIRL, BOY]}), {"sheet": 2}),
    "sex not known": ("id,boneage,sex,x\n1377,180,F,\n1378,12,1,\n", {}),
    "sheet named": (xlsx(a=[HEADER, [1377, 99, "M"]], b=[HEADER, GIRL, BOY]), {"sheet": "b"}),
    "merged title": (xlsx(ages=[["Clinic"], HEADER, GIRL, BOY], merge="A1:C1"), {}),
    "table named": (files(table__csv=PLAIN, other__csv=PLAIN), {"table": "table.csv"}),
    "preferred table": (files(train__csv=PLAIN, valid__csv=PLAIN), {}),
    "outputs of a run beside": (
        files(
            table__csv=PLAIN,
            split__csv="id,bone_age,male,group,subset\n1377,180,False,7,train\n",
            predictions__csv="id,male,bone_age,predicted,error,group\n1377,0,1,1,0,7\n",
        ),
        {},
    ),
    "a text and a broken spreadsheet beside": (
        files(table__csv=PLAIN, a__txt="ages of 2024", b__xlsx="PK"),
        {},
    ),
}


@pytest.mark.parametrize("case", READ)
def test_table_is_read(tmp_path: Path, case: str):
    content, options = READ[case]
    assert load(write(tmp_path, content), **options) == ROWS


REFUSED: dict[str, tuple[Content, dict[str, Any], str]] = {
    "other words": ("id,boneage,sex\n1377,180,W\n1378,12,M\n", {}, r"1 × .* sex .*columns\.sex_values"),
    "both dummies": ("id,boneage,male,female\n1377,180,0,1\n", {}, r"columns\.male=<column>"),
    # columns
    "unknown names": ("Nr;Alter;Geschlecht\n1;180;F\n", {}, r"Nr, Alter, Geschlecht.*columns\.id=<column>"),
    "name not there": (PLAIN, {"columns": {"id": "patient"}}, r"columns\.id=patient"),
    "age in two columns": (
        "id,bone age (years),bone age (months),sex\n1377,15,0,F\n",
        {},
        r"columns\.bone_age=<column>",
    ),
    "one name twice": ("id,boneage,id,male\n1377,180,2,False\n", {}, "several columns are called id"),
    "two ids, other images": ("id,file,boneage,sex\n1377,1378,180,F\n1378,1377,12,M\n", {}, "each.*ns.id"),
    "two ids, no images": ("id,file,boneage,sex\n1,2,180,F\n", {}, r"none.*columns\.id"),
    "sheet of a text": (PLAIN, {"sheet": "a"}, r"data\.sheet=a"),
    # ages
    "years or infants": ("id,boneage,sex\n1377,5.03,F\n1378,18,M\n", {}, r"data\.age_unit=years"),
    "years; months": ("id;boneage;sex\n1377;180;F\n1378;\"5;3\";M\n", {}, "1 × row .* not a number"),
    "months past a year": ("id,boneage,sex\n1377,5y 14m,F\n", {}, "1 × row .* not a number"),
    # files
    "unclosed quote": ('id,boneage,sex\n1377,180,"F\n1378,12,M\n', {}, "line 2"),
    "decimal comma in commas": ("id,sex,boneage\n1377,F,180,5\n", {}, "line 2 has more cells"),
    "GB18030": ("id,boneage,sex\n1377,180,女\n1378,9,男\n".encode("gb18030"), {}, "column sex, .*UTF-8"),
    "formula in a text": ("id,boneage,sex\n1377,=15*12,F\n", {}, "not a number: line 2 "),
    "formula without value": (xlsx(a=[HEADER, [1377, "=15*12", "F"]]), {}, "empty bone age: line 2 "),
    "line of a formula": (xlsx(a=[[], [], HEADER, GIRL, [1378, "=1", "F"]]), {}, "empty bone age: line 5 "),
    "merged cells": (xlsx(a=[HEADER, GIRL, [1378, 12, None]], merge="C2:C3"), {}, "with a sex .*: line 3 "),
    "two sheets": (xlsx(boys=[HEADER, BOY], girls=[HEADER, GIRL]), {}, r"boys, girls .*data\.sheet="),
    "sheet not there": (xlsx(a=[HEADER, BOY]), {"sheet": "b"}, r"data\.sheet=b"),
    "spreadsheet called .csv": (lambda root: shutil_xlsx(root, "table.csv"), {}, "is a spreadsheet"),
    "text called .xlsx": (files(table__xlsx=PLAIN), {}, "not a spreadsheet"),
    "old spreadsheet called .xlsx": (files(table__xlsx=b"\xd0\xcf\x11\xe0"), {}, "without a password"),
    "damaged spreadsheet": (files(table__xlsx=b"PK\3\4"), {}, "cannot be read as a spreadsheet"),
    "Strict Open XML": (lambda root: strict_xlsx(root), {}, "Strict Open XML"),
    "unsupported file": (files(table__ods=""), {}, r"1 \.ods files are not supported"),
    "no rows": ("id,boneage,male\n", {}, "has no rows"),
    "two tables": (files(a__csv=PLAIN, b__csv=PLAIN), {}, r"data\.table=a\.csv"),
    "two unreadable tables": (files(a__csv="x,y\n1,2\n", b__csv="x,z\n1,2\n"), {}, "a.csv.*b.csv.*table="),
    "table not there": (PLAIN, {"table": "ages.csv"}, r"data\.table=ages\.csv"),
    "archive as root": (files(a__zip="PK"), {"root": "a.zip"}, r"data\.root=.*a\.zip is a file"),
    "no image": ("id,boneage,male\n8833,180,False\n", {}, r"8833; files: 1377\.png \(2 in all\)"),
    # options
    "columns": (PLAIN, {"columns": {"sex": "male"}}, r"data\.columns="),
    "columns, no mapping": (PLAIN, {"columns": "id"}, r"data\.columns=id"),
    "both sexes named": (PLAIN, {"columns": {"male": "male", "female": "male"}}, r"data\.columns"),
    "codes that are no sex": (PLAIN, {"columns": {"sex_values": {1: "boy"}}}, r"data\.columns\.sex_values="),
    "unit": (PLAIN, {"age_unit": "days"}, r"data\.age_unit=days"),
    "empty root": (PLAIN, {"root": ""}, r"data\.root is empty"),
}  # fmt: skip


def shutil_xlsx(root: Path, name: str) -> None:
    xlsx(a=[HEADER, GIRL])(root)
    (root / "table.xlsx").rename(root / name)


def strict_xlsx(root: Path) -> None:
    """Write a spreadsheet in the namespace of Strict Open XML."""
    import zipfile

    xlsx(a=[HEADER, GIRL])(root)
    with zipfile.ZipFile(root / "table.xlsx") as book:
        parts = {name: book.read(name) for name in book.namelist()}
    namespaces = {
        b"http://schemas.openxmlformats.org/spreadsheetml/2006/main": b"http://purl.oclc.org/ooxml/spreadsheetml/main",
        b"http://schemas.openxmlformats.org/officeDocument/2006": b"http://purl.oclc.org/ooxml/officeDocument",
    }
    with zipfile.ZipFile(root / "table.xlsx", "w") as book:
        for name, part in parts.items():
            for transitional, strict in namespaces.items():
                part = part.replace(transitional, strict)
            book.writestr(name, part)


@pytest.mark.parametrize("case", REFUSED)
def test_table_is_refused(tmp_path: Path, case: str):
    content, options, named = REFUSED[case]
    root = write(tmp_path, content)
    if options.get("root"):
        options = options | {"root": str(root / options["root"])}
    with pytest.raises(BoneAgeError, match=f"(?s){named}"):
        load(root, **options)


@pytest.mark.parametrize(
    ("name", "cells", "given", "printed"),
    [
        ("sex_F", "10", None, "female=sex_F"),
        ("girl", "10", None, "female=girl"),
        ("female_y", "10", None, "female=female_y"),
        ("Female (1/0)", "10", None, 'female="Female (1/0)"'),
        ("Sex (0=male; 1=female)", "10", None, "male=<column>"),
        ("Sex (0=male; 1=female)", "10", "male", "sex_values={0: <male or female>, 1: <male or female>}"),
        ("not_male", "10", "male", "sex_values={0: "),
        ("isFemale", "10", "male", "female=isFemale"),
        ("female", "10", "male", "female=female"),
        ("m", "10", "female", "male=m"),
        ("sex", "012", None, "sex_values={0: "),
        ("sex", "MHH", None, "sex_values={h: <male or female>, m: "),  # hombre, mujer
    ],
)
def test_sex_that_could_be_the_other_is_refused(
    tmp_path: Path, name: str, cells: str, given: str | None, printed: str
):
    table = f"id,boneage,{name}\n" + "".join(f"{1377 + n},180,{cell}\n" for n, cell in enumerate(cells))
    with pytest.raises(BoneAgeError, match=re.escape(f"data.columns.{printed}")):
        load(write(tmp_path, table), columns={given: name} if given else {})


def page_rows() -> list[list[str]]:
    """Return the rows of the tables in docs/DATA.md that begin with a header of a label table."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    rows = [
        [cell.strip().strip("`") for cell in line.strip("|").split(" | ")]
        for line in lines
        if line.startswith("| `")
    ]
    return [row for row in rows if re.match(r"\d+[,;]|images", row[1])]


@pytest.mark.parametrize("row", page_rows(), ids=lambda row: f"{row[0]}: {row[2]}")
def test_documented_table_is_read_or_asks_for_documented_option(tmp_path: Path, row: list[str]):
    header, cells, result = row
    root = write(tmp_path, f"{header}\n{cells}\n")
    options: dict[str, Any] = {}
    if result != "read":
        overrides = OverridesParser.create().parse_overrides(shlex.split(result))
        with pytest.raises(BoneAgeError, match=re.escape(overrides[0].key_or_group)):
            load(root)
        for override in overrides:
            group, _, key = override.key_or_group.removeprefix("data.").partition(".")
            options[group] = {**options.get(group, {}), key: override.value()} if key else override.value()
    assert load(root, **options) == [("1377", 180, False)]


def test_page_documents_both_kinds():
    results = [row[2] for row in page_rows()]
    assert results.count("read") >= 6
    assert len(results) - results.count("read") >= 5


@pytest.mark.parametrize(
    ("header", "columns", "patients"),
    [
        ("id,patient_id,boneage,sex", {}, ["a", None]),
        ("id,visit,boneage,sex", {"patient": "Visit"}, ["a", None]),
        ("patient_id,visit,boneage,sex", {}, None),  # already the id
    ],
)
def test_patient_is_read(tmp_path: Path, header: str, columns: dict[str, str], patients: Any):
    (tmp_path / "table.csv").write_text(f"{header}\n1377,a,180,F\n1378,,12,M\n")
    for name in ("1377", "1378"):
        (tmp_path / f"{name}.png").touch()
    table, issues = load_table(DatasetSpec(tmp_path, columns=columns))
    assert not issues
    assert (
        table["patient"].replace({float("nan"): None}).tolist() if "patient" in table else None
    ) == patients


@pytest.mark.parametrize(
    ("name", "ages", "months"),
    [
        ("Chronological Age (months)", ["170.5", ""], [170.5, None]),
        ("chronological_age_years", ["14.5", "old"], [174, None]),
        ("ChronologicalAge", ["150", "11"], [150, 11]),
        ("ChronologicalAge", ["14.5", "11"], None),  # years or months?
    ],
)
def test_chronological_age_is_read(tmp_path: Path, name: str, ages: list[str], months: Any):
    (tmp_path / "table.csv").write_text(f"id,{name},boneage,sex\n1377,{ages[0]},180,F\n1378,{ages[1]},12,M\n")
    for image in ("1377", "1378"):
        (tmp_path / f"{image}.png").touch()
    table, issues = load_table(DatasetSpec(tmp_path))
    assert not issues
    read = table["chronological_age"].astype(object) if "chronological_age" in table else None
    assert (None if read is None else read.where(read.notna(), None).tolist()) == months


def test_patient_that_is_also_a_file_is_not_the_id(tmp_path: Path):
    (tmp_path / "table.csv").write_text("id,patient,boneage,sex\n1377,1377,180,F\n1377_1,1377,180,F\n")
    for name in ("1377", "1377_1"):
        (tmp_path / f"{name}.png").touch()
    table = read_table(tmp_path)
    assert table[["id", "patient"]].to_numpy().tolist() == [["1377", "1377"], ["1377_1", "1377"]]


def test_log_names_counts_and_columns(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write(
        tmp_path,
        xlsx(about=[["Clinic"]], ages=[["id", "boneage", "Female?"], [1377, 180, "1.0"], [1378, 12, "0.0"]]),
    )
    with caplog.at_level("INFO"):
        load_table(DatasetSpec(tmp_path))
    for word in (
        "1 girls and 1 boys by column Female? (1 is female)",
        "12 to 180 months by column boneage",
        "about",
    ):
        assert word in caplog.text


def test_bad_rows_are_reported_together_with_their_lines(tmp_path: Path):
    conflict, no_age = "1377,180,False\n1377,100,True\n", "1378,old,True\n1379,999,False\n"
    others = "1380,50,maybe\n,3,True\n1381,,True\n1382,9,True\n1382,9,True\n1383,9,True\n"
    write(tmp_path, f"id,boneage,male\n\n{conflict}{no_age}{others}")
    _, issues = load_table(DatasetSpec(tmp_path))
    found = issues.table()
    lines = found["where"].str.extract(r"line (\d+)")[0]
    assert sorted(lines.dropna().astype(int)) == [3, 4, 5, 6, 7, 8, 9, 11]
    assert found["problem"].str.contains("another age or sex").sum() == 2
    assert found["problem"].str.contains("without its image").sum() == 2
    assert "(12 in all)" not in issues.summary()


@pytest.mark.parametrize(
    ("images", "csv"),
    [
        ("boneage-training-dataset", "boneage-training-dataset.csv"),
        ("boneage-training-dataset/boneage-training-dataset", "train.csv"),
        ("x/y", "x/my table.csv"),
    ],
)
def test_layouts_of_kaggle_and_others(tmp_path: Path, images: str, csv: str):
    names = [f"{images}/{i}.png" for i in (1377, 1378)]
    write(
        tmp_path,
        lambda root: ((root / csv).parent.mkdir(exist_ok=True), (root / csv).write_text(PLAIN)),
        *names,
    )
    (tmp_path / "boneage-test-dataset.csv").write_text("Case ID,Sex\n4360,M\n")
    (tmp_path / "copy").mkdir()
    table = read_table(tmp_path)
    assert [Path(path).stem for path in table["path"]] == table["id"].tolist() == ["1377", "1378"]
    (tmp_path / "copy" / "1377.png").write_bytes(Path(table["path"][0]).read_bytes())
    if images.startswith("boneage"):  # the challenge's folder is preferred to a copy
        assert read_table(tmp_path).equals(table)
    else:
        with pytest.raises(BoneAgeError, match="1 × id with more than one image"):
            read_table(tmp_path)


def test_root_may_be_table_or_images(tmp_path: Path):
    write(tmp_path, PLAIN)
    assert load(tmp_path / "table.csv") == load(tmp_path / "images", table="../table.csv") == ROWS


@pytest.mark.parametrize("folder", [".", "nowhere"])
def test_missing_data_names_every_source(tmp_path: Path, folder: str):
    with pytest.raises(BoneAgeError) as error:
        read_table(tmp_path / folder)
    for word in (
        str(tmp_path),
        "data.table",
        "boneage_pl.download",
        "kmader/rsna-bone-age",
        "data=phantom",
        "BONEAGE_DATA",
    ):
        assert word in str(error.value)


def test_pipe_is_not_read(tmp_path: Path):
    write(tmp_path, PLAIN)
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "dangling.csv").symlink_to(tmp_path / "nowhere")
    (tmp_path / "images/1377.png").unlink()
    os.mkfifo(tmp_path / "images/1377.png")
    assert len(read_table(tmp_path)) == 2
    with pytest.raises(BoneAgeError, match=r"1377\.png: not a regular file"):
        load_radiograph(tmp_path / "images/1377.png")


def test_spreadsheet_without_openpyxl_names_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path, xlsx(a=[HEADER, GIRL]))
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(BoneAgeError, match=r"boneage_pl\[xlsx\]"):
        load(tmp_path)


NFD = unicodedata.normalize("NFD", "Müller")


@pytest.mark.parametrize(
    ("cell", "images", "matched"),
    [
        ("1377", ["a/1377.png"], 1),
        ("1377.PNG", ["a/1377.png"], 1),
        ("1377", ["a/001377.png"], 1),
        ("001377", ["a/1377.png"], 1),
        ("a", ["x/a.png", "x/A.png"], 1),  # an exact match is preferred
        ("Müller.png", [f"x/{NFD}.png"], 1),
        ("a\\1.png", ["r/a/1.png", "r/b/1.png"], 1),
        ("./a/1.png", ["r/a/1.png", "r/b/1.png"], 1),
        ("file:///home/me/a/M%C3%BCller.png", [f"r/a/{NFD}.png"], 1),
        ("/other/machine/a/1.png", ["r/a/1.png", "r/b/1.png"], 1),
        ("girls/1.png", ["r/boys/1.png"], 0),
        ("C:\\girls\\1.png", ["r/boys/1.png"], 0),
        ("1", ["a/1.png", "b/1.png"], 2),
        ("1377", ["r/1377/hand.png"], 1),  # one folder per patient
        ("1377", ["r/1377/left.png", "r/1377/right.png"], 0),
        ("1377", ["r/hand_1377.png"], 0),
    ],
)  # fmt: skip
def test_id_or_path_finds_its_image(cell: str, images: list[str], matched: int):
    found = match_images([cell], [f"/{image}" for image in images])
    assert len(found.get(cell, [])) == matched
    if matched == 1:
        assert found[cell] == [f"/{images[0]}"]


def test_ambiguous_ids_find_nothing():
    assert match_images(["7", "07"], ["/r/007.png"]) == {}
    assert match_images(["C:\\x\\a\\1.png", "D:\\y\\a\\1.png"], ["/r/a/1.png"]) == {}
    assert match_images(["7", "07"], ["/r/7.png", "/r/07.png"]) == {"7": ["/r/7.png"], "07": ["/r/07.png"]}


def test_paths_that_differ_by_folder_keep_it(tmp_path: Path):
    table = "path,boneage,sex\n1377/hand.png,180,F\n1378/hand.png,12,M\n"
    write(tmp_path, table, "1377/hand.png", "1378/hand.png")
    assert load(tmp_path) == [("1377/hand", 180, False), ("1378/hand", 12, True)]


@pytest.mark.parametrize(
    ("cell", "unit", "months"),
    [
        ("63", "months", 63),
        ("5.25", "years", 63),
        ("10.83", "years", 130),
        ("5,25", "years", 63),
        ("5y 3m", "months", 63),
        ("5 years, 3 months", "years", 63),
        ("63 mo", "years", 63),
        ("5.25 yrs", "months", 63),
        ("5;3", "years", None),
        ("5y 13m", "years", None),
        ("5.5y 3m", "years", None),
        ("5y3m", "years", 63),
        ("5y3", "years", None),
        (",", "years", None),
        ("five", "years", None),
        ("", "years", None),
    ],
)
def test_age_is_parsed(cell: str, unit: Any, months: float | None):
    (age,) = parse_ages(pd.Series([cell]), unit)
    assert age == months if months is not None else pd.isna(age)


@pytest.mark.parametrize(
    ("name", "sexes"),
    [
        *((name, {"female"}) for name in ("female", "Female?", "is_female", "isFemale", "sex_F", "sexF")),
        *((name, {"female"}) for name in ("girl", "weiblich", "Sex [w]")),
        *((name, {"male"}) for name in ("male", "is_male", "sex_M", "Boy?")),
        *((name, {"female", "male"}) for name in ("M/F", "Sex (0=male; 1=female)", "not_male", "Male=0")),
        *((name, set()) for name in ("sex", "gender", "Geschlecht", "width", "form")),
    ],
)  # fmt: skip
def test_name_mentions_sexes(name: str, sexes: set[str]):
    assert named_sexes(name) == sexes


@pytest.mark.parametrize(
    ("flag", "sexes"),
    [("male", [True, False, True, False, True, True]), ("female", [False, True, False, False, True, False])],
)
def test_flags_follow_the_column_and_words_do_not(flag: Any, sexes: list[bool]):
    cells = pd.Series(["1", "0", "TRUE", "F", "boy", "1.0", "", "x"], name=flag)
    columns = {"sex": [flag], "female": [flag] if flag == "female" else []}
    parsed = parse_sexes(LabelTable(Path(), cells.to_frame(), columns, DatasetSpec(Path())), cells)
    assert parsed[:6].tolist() == sexes
    assert parsed[6:].isna().all()


@pytest.mark.parametrize(
    ("text", "sexes"),
    [
        ("path,Female?\na.png,1\nb.png,0\n", [False, True]),
        ("id,gender\na,girl\nb,M\n", [False, True]),
        ("Patient,2024\npath,sex\na.png,F\nb.png,M\n", [False, True]),
        ('"Our\nlist",\npath,sex\na.png,F\nb.png,M\n', [False, True]),
        ("path,sex\na.PNG,unknown\nb.png,\n", ["unknown", "default"]),
        ("path,chromosome\na.png,x\nb.png,y\n", [False, True]),
        ("path,is_female\na.png,1\n", "data.columns.female=is_female"),
        ("path,sex\na.png,1\nb.png,2\n", "data.columns.sex_values"),
        ("path,male,female\na.png,1,0\n", "data.columns.male"),
        ("name,age\na,1\n", "data.columns.id"),
    ],
)
def test_prediction_reads_sexes_as_training_does(tmp_path: Path, text: str, sexes: list[Any] | str):
    write(tmp_path, text, "a.png", "b.png")
    if isinstance(sexes, str):
        with pytest.raises(BoneAgeError, match=re.escape(sexes)):
            requests_from_table(tmp_path / "table.csv", "default")
    else:
        codes = {"male": "chromosome", "sex_values": {"x": "female", "y": "male"}}
        spec = DatasetSpec(tmp_path, columns=codes if "chromosome" in text else {})
        requests = requests_from_table(tmp_path / "table.csv", "default", spec)
        assert [(Path(r.image).name, r.male, r.error) for r in requests] == [
            (name, sex, "") for name, sex in zip(("a.png", "b.png"), sexes, strict=False)
        ]


def test_printed_option_reads_every_sex(tmp_path: Path):
    """The option in the error message, added to the command, gives the right sexes."""
    names = [f"{n}.png" for n in range(20)]
    write(
        tmp_path,
        "id,boneage,is_female\n" + "".join(f"{n},{30 + n},{n % 3 == 0}\n" for n in range(20)),
        *names,
    )
    command = [sys.executable, "-m", "boneage_pl.prepare", f"data.root={tmp_path}"]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr
    (option,) = re.findall(r"data\.columns\.\S+", refused.stderr)
    done = subprocess.run([*command, option], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "7 girls and 13 boys by column is_female (1 is female)" in done.stdout + done.stderr
