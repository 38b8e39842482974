"""`make stress`: break runs of a tiny network in every way, and print a table of results.

`--quick` tries a share of each in about two minutes; `--only kills` one group.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.stress.full_disk import at_once, full_disks
from tests.stress.fuzzing import mutations
from tests.stress.harness import V1, V3, Bench, Row
from tests.stress.kill_and_resume import HARDEST, SIGNALS, kills, signals
from tests.stress.malicious_files import checkpoints, damaged, folders


def main() -> int:
    """Try, print the table, and return 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=["mutations", "kills", "signals", "disks", "at_once", "malicious"])
    parser.add_argument("--seed", type=int, help="of the moments that are drawn; a new one each time")
    parser.add_argument(
        "--kills", type=int, help="how many of v1 (25, and 2 with --quick), and half as many of v3"
    )
    options = parser.parse_args()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    print(f"--seed {seed}", flush=True)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="stress") as folder:
        bench = Bench(Path(folder))
        try:
            rows = list(_rows(bench, Path(folder), options, seed))
        finally:
            bench.close()
    print("\n| fault | times | failed | result |\n| --- | --- | --- | --- |")
    for row in rows:
        print(
            f"| {row.what} | {row.tried} | {len(row.failed)} | {row.found if not row.failed else 'FAILED'} |"
        )
    for row in rows:
        for failure in row.failed:
            print(f"\nFAILED {row.what}: {failure}")
    print(f"\n{time.monotonic() - begun:.0f} s")
    return int(any(row.failed for row in rows))


def _rows(bench: Bench, folder: Path, options: argparse.Namespace, seed: int) -> Iterator[Row]:
    quick, only = options.quick, options.only
    count = options.kills or (2 if quick else 25)
    groups: dict[str, list[Callable[[], Row | list[Row]]]] = {
        "mutations": [lambda: mutations(folder, 200 if quick else 1000, seed)],
        "kills": [
            lambda: kills(bench, V1, count, seed),
            *([] if quick else [lambda: kills(bench, V3, -(-count // 2), seed)]),
        ],
        "signals": [
            lambda name=name: signals(bench, name, 1 if quick else 5)
            for name in (HARDEST if quick else SIGNALS)
        ],  # type: ignore[misc]
        "disks": [lambda: full_disks(bench, ("checkpoint",)) if quick else full_disks(bench)],
        "at_once": [] if quick else [lambda: at_once(bench)],
        "malicious": [
            lambda: checkpoints(bench, 3 if quick else None),
            lambda: folders(bench),
            lambda: damaged(bench),
        ],
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
