import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from boneage_pl.utils import processes


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "20000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({}, 8),
    ],
)
def test_container_quota_limits_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: int
):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    quotas = [[f.replace("/sys/fs/cgroup", str(tmp_path)) for f in pair] for pair in processes._CPU_QUOTAS]
    monkeypatch.setattr(processes, "_CPU_QUOTAS", quotas)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert processes.cores() == expected


def test_slow_consumer_bounds_what_waits():
    done: list[int] = []
    with ThreadPoolExecutor(4) as pool:
        results = processes.bounded_map(pool, lambda task: done.append(task) or task, iter(range(10_000)), 8)
        for taken, result in zip(range(20), results, strict=False):
            assert result == taken
            time.sleep(0.002)
            assert len(done) <= taken + 1 + 8
        results.close()


def test_parallel_results_come_in_order():
    for limit in (1, 16, 1000):
        assert list(processes.parallel_map(abs, range(-200, 0), 2, limit)) == list(range(200, 0, -1))
