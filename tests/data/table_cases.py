"""What people bring: small data sets as they really are, and what is said of each.

Each case makes its files; `said` is what the project answers, and stands in docs/DATA.md.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image


@dataclass
class Case:
    """A data set.

    Args:
        name: what is odd about it.
        table: the text of `table.csv`, or what writes one.
        images: file names; each is a small picture of its own.
        files: other files' texts by name.
        options: of `data.`; `{root}` stands for the folder.
        said: words of the refusal; nothing where it is read.
        noted: words that are told of what is read.
        rows: `(id, months, male)` as they are read.
    """

    name: str
    table: str | Callable[[Path], None] | None = None
    images: list[str] = field(default_factory=lambda: ["1377.png", "1378.png"])
    files: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    said: str = ""
    noted: str = ""
    rows: list[tuple[str, float, bool]] = field(
        default_factory=lambda: [("1377", 180, False), ("1378", 12, True)]
    )

    def make(self, root: Path) -> dict[str, Any]:
        """Write the data set under `root`, and return the options for `Place.of`."""
        (root / "images").mkdir(parents=True)
        for number, name in enumerate(self.images):
            (root / "images" / name).parent.mkdir(exist_ok=True, parents=True)
            picture(number).save(root / "images" / name)
        if callable(self.table):
            self.table(root)
        elif self.table is not None:
            (root / "table.csv").write_text(self.table)
        for name, text in self.files.items():
            (root / name).write_text(text)
        options = {"root": "{root}", **self.options}
        return {k: v.replace("{root}", str(root)) if isinstance(v, str) else v for k, v in options.items()}


def picture(number: int) -> Image.Image:
    """Return noise of a seed, 40 × 40."""
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (40, 40), dtype=np.uint8))


def _excel(root: Path) -> None:
    """Write a spreadsheet whose second sheet is the table, under a title."""
    with pd.ExcelWriter(root / "ages.xlsx") as file:
        pd.DataFrame({"about": ["Radiology, 2024"]}).to_excel(file, sheet_name="about", index=False)
        table = pd.DataFrame({"ID": [1377, 1378], "Bone age": [180, 12], "Sex": ["F", "M"]})
        table.to_excel(file, sheet_name="ages", index=False, startrow=2)


def _windows(root: Path) -> None:
    (root / "ages.csv").write_bytes(
        "Fälle von Köln;;\nid;boneage;sex\n1377;180;F\n1378;12;M\n".encode("cp1252")
    )


PLAIN = "id,boneage,male\n1377,180,False\n1378,12,True\n"

COLUMNS = [
    Case("RSNA validation", "Image ID,male,Bone Age (months)\n1377,FALSE,180\n1378,TRUE,12\n"),
    Case("RSNA test", "Case ID,Sex,Ground truth bone age (months)\n1377,F,180.0\n1378,M,12\n"),
    Case("sex", "id,boneage,sex\n1377,180,F\n1378,12,M\n"),
    Case("gender, other order and case", "Gender,BONEAGE,Id\nfemale,180,1377\nmale,12,1378\n"),
    Case("underscores", "image_ID,sex,bone_age\n1377,F,180\n1378,M,12\n"),
    Case("female", "id,boneage,female\n1377,180,True\n1378,12,False\n"),
    Case("a spreadsheet in German", "id;boneage;male\n1377;180,0;FALSCH\n1378;12,0;WAHR\n"),
    Case("Excel's first line", "sep=;\nid;boneage;male\n1377;180;False\n1378;12;True\n"),
    Case("a title and a blank line", "Clinic of 2024\n\nid,boneage,male\n1377,180,False\n1378,12,True\n"),
    Case("text marks", 'id,boneage,male\n="1377",180,False\n\'1378,12,True\n'),
    Case("a second sheet", _excel),
    Case(
        "named columns",
        "Patient;Alter;Geschlecht\n1377;180;F\n1378;12;M\n",
        options={"columns": {"id": "patient", "bone_age": "Alter", "male": "geschlecht"}},
    ),
    Case(
        "unknown columns",
        "Nummer;Alter;Geschlecht\n1377;180;F\n1378;12;M\n1379;12;M\n",
        said="no column is recognized as an id or a bone age or a sex; "
        "its columns are Nummer, Alter, Geschlecht.\nName what is missing: "
        "data.columns.id=Nummer data.columns.bone_age=Alter data.columns.male=Geschlecht",
    ),
    Case(
        "a column with blanks",
        "id,age at exam,male\n1377,180,False\n1378,12,True\n",
        said="Name what is missing: 'data.columns.bone_age=\"age at exam\"'",
    ),
    Case(
        "no sex at all",
        "id,boneage\n1377,180\n1378,12\n",
        said="no column is recognized as a sex; its columns are id, boneage.",
    ),
    Case(
        "a column that is not there",
        PLAIN,
        options={"columns": {"id": "patient"}},
        said="no column is recognized as an id (data.columns.id=patient)",
    ),
    Case(
        "two ages",
        "id,boneage,bone_age,male\n1377,180,181,False\n",
        said="more than one column could be a bone age: boneage, bone_age.\n"
        "Say which: data.columns.bone_age=boneage",
    ),
    Case("a spreadsheet of Windows", _windows),
    Case("two bytes a letter", lambda root: (root / "a.csv").write_text(PLAIN, encoding="utf-16-le")),
    Case(
        "a text beside the table",
        "id,age,male\n1377,180,False\n1378,12,True\n",
        files={"README.txt": "These hands, as of 2024, are ours.\n"},
        said="no column is recognized as a bone age; its columns are id, age, male.\n"
        "Name what is missing: data.columns.bone_age=age",
    ),
    Case(
        "a damaged spreadsheet",
        files={"ages.xlsx": "PK"},
        said="ages.xlsx cannot be read as a table: ",
    ),
    Case(
        "an old spreadsheet",
        files={"ages.xls": ""},
        said=".xls tables are not read. Save it as .csv or .xlsx.",
    ),
]

FOLDERS = [
    Case("a named table", PLAIN, files={"other.csv": PLAIN}, options={"table": "table.csv"}),
    Case(
        "train.csv and valid.csv",
        files={"train.csv": PLAIN, "valid.csv": PLAIN},
        noted="table: train.csv; not valid.csv",
    ),
    Case(
        "two tables",
        PLAIN,
        files={"other.csv": PLAIN},
        said="holds 2 tables with an id, a bone age and a sex in each row: other.csv, table.csv\n"
        "Say which: data.table=other.csv",
    ),
    Case(
        "a run beside the data",
        PLAIN,
        files={
            "split.csv": "id,bone_age,male,group,subset\n1377,180,False,7,train\n",
            "predictions.csv": "id,male,bone_age,predicted,error,group\n1377,0,1,1,0,7\n",
        },
    ),
    Case(
        "an archive as root",
        files={"a.zip": "PK"},
        options={"root": "{root}/a.zip"},
        said="data.root={root}/a.zip is a file and no table. Unpack it, and name the folder.",
    ),
    Case("the table as root", PLAIN, options={"root": "{root}/table.csv"}),
    Case(
        "the images as root, the table named",
        PLAIN,
        options={"root": "{root}/images", "table": "../table.csv"},
    ),
    Case(
        "the images as root",
        PLAIN,
        options={"root": "{root}/images"},
        said="holds 2 images and no table; the table is one level up.\n"
        "Say so: data.root={root}/images data.table=../table.csv",
    ),
    Case(
        "a table that is not there",
        PLAIN,
        options={"table": "ages.csv"},
        said="data.table=ages.csv: there is no such file",
    ),
]

IDS = [
    Case("a number's .0", "id,boneage,male\n1377.0,180,False\n1378.0,12,True\n"),
    Case("a file's name", "id,boneage,male\n1377.png,180,False\n1378.PNG,12,True\n"),
    Case("zeros in the file name", PLAIN, images=["001377.png", "001378.png"]),
    Case(
        "zeros in the table",
        "id,boneage,male\n001377,180,False\n001378,12,True\n",
        rows=[("001377", 180, False), ("001378", 12, True)],
    ),
    Case(
        "a common beginning",
        PLAIN,
        images=["hand_1377.png", "hand_1378.png", "hand_9.png"],
        noted="images are matched as hand_<id>: hand_1377.png (2 in all)",
    ),
    Case(
        "a common beginning and end, with zeros",
        "id,boneage,male\n77,180,False\n78,12,True\n",
        images=["2017_0077_L.png", "2017_0078_L.png"],
        rows=[("77", 180, False), ("78", 12, True)],
        noted="images are matched as 2017_<id>_L: 2017_0077_L.png (2 in all)",
    ),
    Case(
        "no image for any row",
        "id,boneage,male\n8833,180,False\n",
        images=["hand_9.png", "hand_10.png"],
        files={f"{n}.dcm": "" for n in range(16)},
        said="no row finds its image under {root}.\n"
        "table: 8833; files: hand_10.png (2 in all); 16 .dcm files are not read.",
    ),
    Case(
        "two images for a row",
        PLAIN,
        images=["1377_L.png", "1377_R.png", "1378_L.png", "1378_R.png"],
        said="2 × id with more than one image",
    ),
]

AGES = [
    Case(
        "infants",
        "id,boneage,male\n1377,18,False\n1378,3,True\n",
        said="the oldest of its 2 bone ages is 18: these look like years, or like infants' months.\n"
        "Say which: data.age_unit=months if the children are that young, data.age_unit=years if not.",
    ),
    Case(
        "infants, asserted",
        "id,boneage,male\n1377,18,False\n1378,3,True\n",
        options={"age_unit": "months"},
        rows=[("1377", 18, False), ("1378", 3, True)],
    ),
    Case(
        "infants, in the header",
        "id,bone age (months),male\n1377,18,False\n1378,3,True\n",
        rows=[("1377", 18, False), ("1378", 3, True)],
    ),
    Case(
        "years with months as twelfths",
        "id,boneage,male\n1377,15.83,False\n1378,3.08,True\n",
        said="and all are twelfths (15.83): these look like years.\n"
        "data.age_unit=years makes months of them; data.age_unit=months takes them as they are.",
    ),
    Case(
        "years of a grown-up",
        "id,boneage,male\n1377,21.17,False\n1378,3.08,True\n",
        said="and all are twelfths (21.17): these look like years.",
    ),
    Case(
        "few months",
        "id,boneage,male\n1377,21,False\n1378,3,True\n",
        rows=[("1377", 21, False), ("1378", 3, True)],
    ),
    Case(
        "years, asserted",
        "id,boneage,male\n1377,15.83,False\n1378,3.08,True\n",
        options={"age_unit": "years"},
        rows=[("1377", 190, False), ("1378", 37, True)],
        noted="bone ages are in years there, and were made months",
    ),
    Case(
        "years, in the header",
        "id,Bone age (years),male\n1377,15,False\n1378,1,True\n",
        noted="bone ages are in years there, and were made months",
    ),
]

TABLES = [*COLUMNS, *FOLDERS, *IDS, *AGES]
