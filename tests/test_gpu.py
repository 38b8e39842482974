"""The GPU benchmark's rehearsal on a CPU, and that training steps do not synchronize."""

import json
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from benchmarks import gpu, meter
from boneage_pl.cli import CONF_DIR
from tests.conftest import SMALL_PHANTOM
from tests.helpers.fork_server import Forks

BRAKE = "+callbacks.brake={_target_: tests.helpers.tiny_models.Brake, seconds: 20}"
SMALL = {
    "v1": ("model._target_=tests.helpers.tiny_models.Tiny", "data.batch_size=8"),
    "v3": ("model.backbone=test_efficientnet", "data.batch_size=8"),
}


@pytest.mark.parametrize("experiment", SMALL)
def test_step_has_no_sync_and_no_float64(tmp_path: Path, forks: Forks, experiment: str):
    steps = "warm: 1, timed: 1, profiled: 1, watched: 1"
    meter = f"+callbacks.meter={{_target_: benchmarks.meter.Meter, out: meter.json, {steps}}}"
    options = [*SMALL_PHANTOM, *SMALL[experiment], "model.weights=null", "trainer.max_epochs=3", meter]
    forks.run(f"+experiment={experiment}", *options, cwd=tmp_path)
    found = json.loads((tmp_path / "meter.json").read_text())
    assert found["synchronized"] == []
    assert found["synchronizations"] == 0
    assert all(found[name] > 0 for name in ("images_per_s", "transforms_ms", "epoch_s"))


def test_synchronization_is_detected():
    with meter.synchronizations(found := [], cuda=False):
        float(torch.ones(1).sum())
        torch.ones(2) + torch.tensor([1.0, 2.0])
    assert [where.split(":")[0] for where in found] == [__file__, __file__]
    with pytest.raises(AssertionError), meter.synchronizations([], cuda=False):
        torch.ones(1).double()


def test_rows_are_known_and_compose():
    rows = list(gpu.rows())
    assert len({row.name for row in rows}) == len(rows)
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        for row in rows:
            assert row.what in gpu.ROWS
            if row.what == "train":
                options = row.options
                cfg = compose("config", overrides=[f"+experiment={options['experiment']}", *options["also"]])
                assert cfg.model


@pytest.mark.slow
def test_failing_row_is_recorded_and_others_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    bad = gpu.Row("a loop of no size", "loop", {"size": "none", "amp": False})
    monkeypatch.setattr(gpu, "rows", lambda: [bad, gpu.Row("bf16 matrix peak", "peak")])
    monkeypatch.setattr(gpu, "rehearsed", lambda row: row)
    monkeypatch.setattr(sys, "argv", ["gpu", "--rehearse", "--save", str(tmp_path)])
    gpu.main()
    record = json.loads((tmp_path / "gpu_rehearsal.json").read_text())
    assert [("error" in row) for row in record["rows"]] == [True, False]
    assert [row["name"] for row in record["rows"]] == [bad.name, "bf16 matrix peak"]
    assert record["by"]["packages"]["torch"] in torch.__version__
    lines = (tmp_path / "gpu_rehearsal.md").read_text().splitlines()
    assert lines[-2].startswith("| a loop of no size | ")
    assert capsys.readouterr().out.splitlines() == lines[-2:]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_slow_row_is_stopped_with_its_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    row = gpu.rehearsed(gpu.training("v1", 107, *SMALL["v1"], BRAKE))
    assert "stopped after" in gpu.run_row(row, "cpu", 30)["error"]
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert not [command for command in commands if str(tmp_path).encode() in command]
    assert not list(tmp_path.iterdir())


def test_missing_gpu_is_reported(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu"])
    with pytest.raises(SystemExit, match=r"no GPU here\. --rehearse"):
        gpu.main()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_row_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["gpu", "--rehearse", "--minutes", "55", "--save", str(tmp_path)])
    gpu.main()
    record = json.loads((tmp_path / "gpu_rehearsal.json").read_text())
    assert [row["name"] for row in record["rows"]] == [row.name for row in gpu.rows()]
    assert not [row for row in record["rows"] if "error" in row]
