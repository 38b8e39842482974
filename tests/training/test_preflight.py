import pytest

from boneage_pl.training.preflight import _exit_on_any_error


def test_unexpected_error_ends_the_command(capsys: pytest.CaptureFixture[str]):
    """Hydra would turn it into a warning and train."""
    with pytest.raises(SystemExit) as stop, _exit_on_any_error():
        raise ValueError("unforeseen")
    assert stop.value.code == 1
    assert "ValueError: unforeseen" in capsys.readouterr().err
