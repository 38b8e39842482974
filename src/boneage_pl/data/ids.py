"""Which image belongs to which row: by the id, as tables and file names really write it."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

_EXAMPLES = 20  # ids that are looked for inside file names, to find what all of them have around the id


def match_images(ids: list[str], images: list[str]) -> tuple[dict[str, list[str]], str]:
    """Return the images of each id that has any, and how their names were read where they are not `<id>.png`.

    An id is only ever compared with the names of files that are there: none is made into a path. First they
    are compared to the letter; what is left then without regard to case, a number's `.0` or an image's suffix
    in the table; then without a number's leading zeros. Only where none of these finds anything is a
    beginning or an end looked for that all file names have around the id, such as `hand_`.

    Args:
        ids: of the table, each once.
        images: every image file's path.

    Returns:
        Images by id, more than one where several could be meant; and the beginning and end around it
        (`hand_<id>`), else nothing.
    """
    stems: dict[str, list[str]] = {}
    for path in images:  # as text: a hundred thousand Paths take seconds
        stems.setdefault(path.rpartition(os.sep)[2].rpartition(".")[0], []).append(path)
    found: dict[str, list[str]] = {}
    rest = ids
    for key in (str, _normalize_name, _strip_leading_zeros):
        rest = _match(rest, stems, key, found) if rest else []
    if found or not ids:
        return found, ""
    return _match_by_affix(ids, stems)


def _match(
    ids: list[str], stems: dict[str, list[str]], key: Callable[[str], str], found: dict[str, list[str]]
) -> list[str]:
    """Move what `key` makes equal from `stems` to `found`, and return the ids that are left."""
    by_key: dict[str, list[str]] = {}
    for stem in stems:
        by_key.setdefault(key(stem), []).append(stem)
    keys = {i: key(i) for i in ids}
    times = Counter(keys.values())
    taken = {i: by_key[k] for i, k in keys.items() if k in by_key and times[k] == 1}
    found.update({i: [path for stem in names for path in stems[stem]] for i, names in taken.items()})
    for name in {name for names in taken.values() for name in names}:
        del stems[name]
    return [i for i in ids if i not in taken]


def _normalize_name(name: str) -> str:
    """Return a name without case, and without the `.0` or `.png` that a table has and a stem has not."""
    name = unicodedata.normalize("NFC", name).casefold()
    return re.sub(r"(?<=\d)\.0+$|\.(png|jpe?g|dcm|tiff?)$", "", name)


def _strip_leading_zeros(name: str) -> str:
    name = _normalize_name(name)
    return name.lstrip("0") or "0" if name.isdigit() else name


def _match_by_affix(ids: list[str], stems: dict[str, list[str]]) -> tuple[dict[str, list[str]], str]:
    """Find what most file names have before and after the id, and match by it."""
    wanted = {_strip_leading_zeros(i): i for i in ids}
    sample = list(wanted)[:: max(len(wanted) // _EXAMPLES, 1)][:_EXAMPLES]
    around: Counter[tuple[str, str]] = Counter()
    for part in sample:
        # a number is not part of a longer number
        edge = (r"(?<!\d)0*", r"(?!\d)") if part.isdigit() else ("", "")
        pattern = re.compile(f"{edge[0]}{re.escape(part)}{edge[1]}", re.IGNORECASE)
        around.update({(s[: m.start()], s[m.end() :]) for s in stems for m in pattern.finditer(s)})
    most = max(around.values(), default=0)
    if most < min(2, len(ids)):
        return {}, ""
    ends = [end for end, times in around.items() if times == most]
    found: dict[str, list[str]] = {}
    for before, after in ends:
        for stem, paths in stems.items():
            if len(stem) > len(before) + len(after) and stem.startswith(before) and stem.endswith(after):
                i = wanted.get(_strip_leading_zeros(stem[len(before) : len(stem) - len(after)]))
                if i is not None:
                    found.setdefault(i, []).extend(paths)
    return found, " or ".join(f"{before}<id>{after}" for before, after in ends)


def format_example(paths: Iterable[str]) -> str:
    """Name the first of some files, and say how many there are."""
    listed = list(paths)
    more = f" ({len(listed)} in all)" if len(listed) > 1 else ""
    return f"{Path(listed[0]).name}{more}"
