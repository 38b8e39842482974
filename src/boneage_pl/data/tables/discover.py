"""Find the label table in a folder."""

import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from boneage_pl.data.tables.columns import NotALabelTableError
from boneage_pl.data.tables.parse import LabelTable, read_label_table
from boneage_pl.data.tables.spec import IMAGE_SUFFIXES, TABLE_SUFFIXES, DatasetSpec, format_options
from boneage_pl.errors import BoneAgeError, first_line
from boneage_pl.utils.files import filter_by_suffix

log = logging.getLogger(__name__)
PREFERRED = ("boneage-training-dataset.csv", "train.csv")  # the training tables of Kaggle and of the RSNA
_RUN_OUTPUTS = ({"group", "subset"}, {"group", "predicted"})  # columns of split.csv and predictions.csv


def find_label_table(spec: DatasetSpec, files: list[str], images: list[str]) -> LabelTable:
    """Return the label table of a data set.

    Args:
        spec: the data set.
        files: all files in its folder.
        images: the images among them.

    Raises:
        BoneAgeError: no table, several candidates, or an unreadable one.
    """
    if spec.table is not None:
        for path in (spec.root / spec.table, spec.table):
            if path.is_file():
                return read_label_table(path, spec, ages=True)
        raise BoneAgeError(f"data.table={spec.table}: no such file, in {spec.root} or in the working folder.")
    tables: dict[str, LabelTable | BoneAgeError] = {}
    failures: list[NotALabelTableError] = []
    for file in map(Path, filter_by_suffix(files, TABLE_SUFFIXES)):
        name = str(file.relative_to(spec.root))
        try:
            table = read_label_table(file, spec, ages=True)
            if not any(columns <= set(table.rows.columns) for columns in _RUN_OUTPUTS):
                tables[name] = table
        except NotALabelTableError as error:
            failures.append(error)
        except BoneAgeError as error:
            tables[name] = error
    if not tables:
        raise _no_table_error(spec, failures, files, images)
    preferred = ([name for name in tables if Path(name).name.lower() == known] for known in PREFERRED)
    chosen, *others = next((names for names in preferred if names), list(tables))
    if others:
        raise BoneAgeError(
            f"{spec.root} has several label tables: {', '.join([chosen, *others][:10])}.\n"
            + format_options(table=chosen)
        )
    label_table = tables.pop(chosen)
    if isinstance(label_table, BoneAgeError):
        raise label_table
    if tables:
        log.info("using label table %s, not %s", chosen, ", ".join(list(tables)[:10]))
    for failure in failures[:5]:
        log.info("ignored: %s", first_line(failure))
    return label_table


def _no_table_error(
    spec: DatasetSpec, failures: list[NotALabelTableError], files: list[str], images: list[str]
) -> BoneAgeError:
    """Return the error for a missing column, table or data set."""
    if len(failures) == 1:
        return failures[0]
    if failures:
        reasons = "\n".join(map(first_line, failures[:5]))
        return BoneAgeError(
            f"{spec.root} has no readable label table.\n{reasons}\n"
            "Pass data.table=<file>, and data.columns.id=<column> and so on for its columns."
        )
    content = f"{len(images)} images, but no table with id, bone age and sex{unsupported_files(files)}"
    state = f"has {content}" if spec.root.is_dir() else "does not exist"
    return BoneAgeError(
        f"data.root={spec.root} ({spec.root.resolve()}) {state}.\n"
        "Pass data.table=<file> for a table elsewhere. The RSNA 2017 training set is downloaded with\n"
        "python -m boneage_pl.download, or from Kaggle (kmader/rsna-bone-age); pass its folder as\n"
        "data.root=<folder> or set BONEAGE_DATA. Or pass data=phantom for synthetic ones."
    )


def unsupported_files(files: Iterable[str]) -> str:
    """Describe the unsupported files."""
    suffixes = Counter(Path(file).suffix.lower() for file in files).most_common()
    others = [(s, n) for s, n in suffixes if s and s not in IMAGE_SUFFIXES + TABLE_SUFFIXES]
    return "".join(f"; {count} {suffix} files are not supported" for suffix, count in others[:2])
