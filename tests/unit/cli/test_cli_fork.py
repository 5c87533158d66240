"""What `firkin fork` refuses before anything happens."""

from __future__ import annotations

from pathlib import Path

import pytest

from firkin.cli import main


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRKIN_HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["web", "-n", "0"], "0 is not in the range x>=1"),
        (["web", "-n", "2", "--name", "one"], "--name names one fork"),
        (["web", "--name", "one", "--name-prefix", "two"], "--name names one fork"),
        (["web"], "machine or snapshot 'web': not found"),
    ],
)
def test_a_wrong_wish_is_told(argv: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["fork", *argv])
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err
