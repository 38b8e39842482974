"""`make stress`: interrupt and damage runs of a tiny network, and print a table of the results.

`--quick` runs a part of each group in about two minutes; `--only kills` runs one group.
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
from tests.stress.harness import V1, V3, Row, Workspace
from tests.stress.kill_and_resume import HARDEST, SIGNALS, kills, signals
from tests.stress.malicious_files import checkpoints, damaged, folders


def main() -> int:
    """Run the groups, print the table, and return 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=["mutations", "kills", "signals", "disks", "at_once", "malicious"])
    parser.add_argument("--seed", type=int, help="of the random moments; by default a new one each time")
    parser.add_argument(
        "--kills", type=int, help="number for v1 (default: 25, or 2 with --quick); half as many for v3"
    )
    options = parser.parse_args()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    print(f"--seed {seed}", flush=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="stress") as folder:
        workspace = Workspace(Path(folder))
        try:
            rows = list(_rows(workspace, Path(folder), options, seed))
        finally:
            workspace.close()
    print("\n| fault | times | failed | result |\n| --- | --- | --- | --- |")
    for row in rows:
        print(
            f"| {row.what} | {row.tried} | {len(row.failed)} | {row.found if not row.failed else 'FAILED'} |"
        )
    for row in rows:
        for failure in row.failed:
            print(f"\nFAILED {row.what}: {failure}")
    print(f"\n{time.monotonic() - start:.0f} s")
    return int(any(row.failed for row in rows))


def _rows(workspace: Workspace, folder: Path, options: argparse.Namespace, seed: int) -> Iterator[Row]:
    quick, only = options.quick, options.only
    count = options.kills or (2 if quick else 25)
    groups: dict[str, list[Callable[[], Row | list[Row]]]] = {
        "mutations": [lambda: mutations(folder, 200 if quick else 1000, seed)],
        "kills": [
            lambda: kills(workspace, V1, count, seed),
            *([] if quick else [lambda: kills(workspace, V3, -(-count // 2), seed)]),
        ],
        "signals": [
            lambda name=name: signals(workspace, name, 1 if quick else 5)
            for name in (HARDEST if quick else SIGNALS)
        ],  # type: ignore[misc]
        "disks": [lambda: full_disks(workspace, ("checkpoint",)) if quick else full_disks(workspace)],
        "at_once": [] if quick else [lambda: at_once(workspace)],
        "malicious": [
            lambda: checkpoints(workspace, 3 if quick else None),
            lambda: folders(workspace),
            lambda: damaged(workspace),
        ],
    }
    for group, trials in groups.items():
        for trial in trials if only in (None, group) else []:
            start = time.monotonic()
            result = trial()
            for row in result if isinstance(result, list) else [result]:
                print(f"{row.what}: {row.tried} tried, {len(row.failed)} failed", flush=True)
                yield row
            print(f"  {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
