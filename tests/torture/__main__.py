"""`make torture`: everything that breaks a run, tried for real on a tiny network; prints what came of it.

`--quick` tries a share of each in less than a minute; `--only kills` one group.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.torture.bench import Bench, Row
from tests.torture.disks import at_once, full_disks
from tests.torture.hostile import checkpoints, folders
from tests.torture.kills import SIGNALS, kills, signals
from tests.torture.mutations import mutations


def main() -> int:
    """Try, print the table, and return 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=["mutations", "kills", "signals", "disks", "at_once", "hostile"])
    options = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="torture") as folder:
        bench = Bench(Path(folder))
        try:
            rows = list(_rows(bench, Path(folder), quick=options.quick, only=options.only))
        finally:
            bench.close()
    print("\n| tried | times | failed | what came of it |\n| --- | --- | --- | --- |")
    for row in rows:
        print(
            f"| {row.what} | {row.tried} | {len(row.failed)} | {row.found if not row.failed else 'FAILED'} |"
        )
    for row in rows:
        for failure in row.failed:
            print(f"\nFAILED {row.what}: {failure}")
    print(f"\n{time.monotonic() - begun:.0f} s")
    return int(any(row.failed for row in rows))


def _rows(bench: Bench, folder: Path, *, quick: bool, only: str | None) -> Iterator[Row]:
    groups: dict[str, list[Callable[[], Row | list[Row]]]] = {
        "mutations": [lambda: mutations(folder, 200 if quick else 1000)],
        "kills": [lambda: kills(bench, 4 if quick else 25)],
        "signals": [lambda name=name: signals(bench, name, 1 if quick else 5) for name in SIGNALS],  # type: ignore[misc]
        "disks": [lambda: full_disks(bench, ("checkpoint",)) if quick else full_disks(bench)],
        "at_once": [] if quick else [lambda: at_once(bench)],
        "hostile": [lambda: checkpoints(bench, 3 if quick else None), lambda: folders(bench)],
    }
    for group, trials in groups.items():
        for trial in trials if only in (None, group) else []:
            begun = time.monotonic()
            result = trial()
            for row in result if isinstance(result, list) else [result]:
                print(f"{row.what}: {row.tried} tried, {len(row.failed)} failed", flush=True)
                yield row
            print(f"  {time.monotonic() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
