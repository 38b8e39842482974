"""Location of a data set and options for its label table."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from boneage_pl.errors import BoneAgeError
from boneage_pl.utils.files import expand_path

AgeUnit = Literal["months", "years"]
TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".xlsx", ".xlsm")
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".jp2", ".j2k", ".bmp"),
    *DICOM_SUFFIXES,
)
_COLUMN_KEYS = ("id", "bone_age", "male", "female", "sex_values", "patient", "chronological_age")
_PLAIN = re.compile(r"[\w./-]+|<.*>", re.ASCII)  # needs no quotes in Hydra and the shell


@dataclass(frozen=True)
class DatasetSpec:
    """A data set: its folder and the options for its label table.

    Args:
        root: the folder of the images.
        table: the table's path, relative to `root` or else to the working folder; `None` to find it.
        columns: names of the columns `id`, `bone_age`, `male` or `female`, `patient` and
            `chronological_age` if they are not recognized; and `sex_values`, the codes of the sex:
            `{1: male, 2: female}`, or `{male: 1, female: 2}`.
        age_unit: of the bone ages; `None` if given by the column's name, or if they exceed `MAX_YEARS`.
        sheet: of a spreadsheet with several tables.
    """

    root: Path
    table: Path | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    age_unit: AgeUnit | None = None
    sheet: str | None = None

    def __post_init__(self) -> None:
        """Check `columns`."""
        self.sex_codes()

    @classmethod
    def from_options(
        cls,
        root: str,
        table: str | None = None,
        columns: Mapping[str, Any] | None = None,
        age_unit: str | None = None,
        sheet: str | None = None,
    ) -> "DatasetSpec":
        """Create a spec from `data.root`, `data.table` and so on; the root may be the table.

        Raises:
            BoneAgeError: an empty root, a root that is a file but no table, or an invalid option.
        """
        folder, named = data_root(root), expand_path(str(table)) if table else None
        if folder.is_file():
            if folder.suffix.lower() not in TABLE_SUFFIXES:
                raise BoneAgeError(
                    f"data.root={root} is a file, not a folder or table. Unpack it and pass the folder."
                )
            folder, named = folder.parent, named or Path(folder.name)
        if age_unit not in (None, "months", "years"):
            raise BoneAgeError(f"data.age_unit={age_unit}: it must be months or years.")
        return cls(folder, named, columns or {}, cast(AgeUnit | None, age_unit), sheet)

    @classmethod
    def from_config(cls, data: Any) -> "DatasetSpec":
        """Create a spec from the group `data` of a configuration."""
        return cls.from_options(*(data.get(key) for key in ("root", "table", "columns", "age_unit", "sheet")))

    def sex_codes(self) -> dict[str, bool]:
        """Return whether each code of `columns.sex_values` is male; empty if not given.

        Raises:
            BoneAgeError: invalid `columns`.
        """
        columns = self.columns
        if not isinstance(columns, Mapping) or not set(columns) <= set(_COLUMN_KEYS):
            raise BoneAgeError(f"data.columns={columns}: the keys must be among {', '.join(_COLUMN_KEYS)}.")
        if columns.get("male") and columns.get("female"):
            raise BoneAgeError("data.columns: give either male or female, not both.")
        codes, words = columns.get("sex_values") or {}, {"male": True, "female": False}
        if isinstance(codes, Mapping) and set(codes) <= set(words):
            codes = {code: word for word, code in codes.items()}
        if not isinstance(codes, Mapping) or not set(codes.values()) <= set(words):
            raise BoneAgeError(f"data.columns.sex_values={codes}: write {{1: male, 2: female}}.")
        keys = {code: re.sub(r"(?<=\d)\.0+$", "", str(code).strip().casefold()) for code in codes}
        return {keys[code]: words[word] for code, word in codes.items()}


def data_root(root: str) -> Path:
    """Return the path of `data.root`; raise `BoneAgeError` if it is empty."""
    if not str(root):
        raise BoneAgeError("data.root is empty: give a folder, or unset BONEAGE_DATA if it is empty.")
    return expand_path(str(root))


def format_options(**options: str) -> str:
    """Format options of `data` for an error, quoted for a shell; `columns__id` is `data.columns.id`."""
    pairs = {f"data.{key.replace('__', '.')}": value for key, value in options.items()}
    quoted = {key: value if _PLAIN.fullmatch(value) else f'"{value}"' for key, value in pairs.items()}
    return "Pass " + " ".join(f"{k}={v}" if v == pairs[k] else f"'{k}={v}'" for k, v in quoted.items())


def resolve_cache_dir(cache_dir: str | None, root: Path) -> Path:
    """Return the folder of `data.cache_dir`; by default `prepared/` in the data folder."""
    return expand_path(cache_dir) if cache_dir else root / "prepared"
