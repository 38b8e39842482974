"""Where a data set lies and how its table, columns and files are named."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from boneage_pl.cli import CONF_DIR
from boneage_pl.errors import BoneAgeError
from boneage_pl.utils.files import expand_path
from boneage_pl.utils.processes import file_lock

AgeUnit = Literal["months", "years"]


@dataclass(frozen=True)
class NamingConventions:
    """What is recognized under a folder; `data.naming` in conf/data/rsna.yaml says what each is for."""

    tables: tuple[str, ...]
    image_folder: str
    table_suffixes: tuple[str, ...]
    image_suffixes: tuple[str, ...]


@cache
def default_conventions() -> NamingConventions:
    """Return `data.naming` as the project ships it."""
    values = yaml.safe_load((CONF_DIR / "data" / "rsna.yaml").read_text(encoding="utf-8"))["naming"]
    return parse_conventions(values)


def parse_conventions(values: Mapping[str, Any]) -> NamingConventions:
    """Return `data.naming` of a configuration: all names in lower case."""
    return NamingConventions(
        tables=_names(values["tables"]),
        image_folder=str(values["image_folder"]).lower(),
        table_suffixes=_names(values["table_suffixes"]),
        image_suffixes=_names(values["image_suffixes"]),
    )


def _names(values: str | Iterable[str]) -> tuple[str, ...]:
    return tuple(str(value).lower() for value in ([values] if isinstance(values, str) else values))


def data_root(root: str) -> Path:
    """Return the path that `data.root` names.

    Raises:
        BoneAgeError: it is empty.
    """
    if not str(root):
        raise BoneAgeError(
            "data.root is empty: name a folder, and see whether BONEAGE_DATA is set to nothing."
        )
    return expand_path(str(root))


@dataclass(frozen=True)
class DatasetSpec:
    """A data set: its folder, and the options that describe its table.

    Args:
        root: the folder of the images.
        table: the table, where it is named; relative to `root`, or else to the working folder.
        columns: names of the columns `id`, `bone_age` and `male`; `None`, for all or one, to recognize it.
        age_unit: of the bone ages; `None` to recognize it.
        naming: names that are recognized.
    """

    root: Path
    table: Path | None = None
    columns: Mapping[str, str | None] | None = None
    age_unit: AgeUnit | None = None
    naming: NamingConventions = field(default_factory=default_conventions)

    @classmethod
    def from_options(
        cls,
        root: str,
        table: str | None = None,
        columns: Mapping[str, str | None] | None = None,
        age_unit: str | None = None,
        known_names: Mapping[str, Any] | None = None,
    ) -> "DatasetSpec":
        """Return the place that `data.root`, `data.table` and so on name; a root that is a table is both.

        Raises:
            BoneAgeError: an empty root, one that is a file and no table, or an option that cannot be right.
        """
        folder = data_root(root)
        if age_unit not in (None, "months", "years"):
            raise BoneAgeError(f"data.age_unit={age_unit}: there are two, months and years.")
        if columns is not None and not isinstance(columns, Mapping):
            raise BoneAgeError(f"data.columns={columns}: name each, data.columns.id=<column> and so on.")
        named = expand_path(str(table)) if table else None
        names = default_conventions() if known_names is None else parse_conventions(known_names)
        if folder.is_file():
            if folder.suffix.lower() not in names.table_suffixes:
                raise BoneAgeError(
                    f"data.root={root} is a file and no table. Unpack it, and name the folder."
                )
            folder, named = folder.parent, named or Path(folder.name)
        return cls(folder, named, columns, cast(AgeUnit | None, age_unit), names)

    @classmethod
    def from_config(cls, data: Any) -> "DatasetSpec":
        """Read it from the group `data` of a configuration."""
        get = data.get
        return cls.from_options(get("root"), get("table"), get("columns"), get("age_unit"), get("naming"))

    def table_file(self) -> Path | None:
        """Return the table where it is named, as it is found.

        Raises:
            BoneAgeError: there is no such file.
        """
        if self.table is None:
            return None
        for path in (self.root / self.table, self.table):
            if path.is_file():
                return path
        raise BoneAgeError(
            f"data.table={self.table}: there is no such file, in {self.root} or in the working folder."
        )


def resolve_cache_dir(store: str | None, root: Path) -> Path:
    """Return the folder that `data.cache_dir` names: by default `prepared/` beside the radiographs."""
    return expand_path(store) if store else root / "prepared"


def generate_if_missing(generate: Callable[[Path], None], root: Path) -> None:
    """Draw synthetic radiographs into `root`; of several processes that call at once one draws."""
    with ExitStack() as held:
        try:
            root.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(file_lock(root.parent / f".{root.name}.lock", f"draws {root}"))
        except OSError as error:
            if not root.is_dir():  # what cannot be written may be whole already; if it is not, this says so
                raise BoneAgeError(
                    f"The phantom cannot be written to {root}: {error.strerror}.\n"
                    "Name a folder that can be written with data.root=<folder>."
                ) from error
        generate(root)
