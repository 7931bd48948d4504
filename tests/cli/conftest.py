"""The command line as tests call it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from anarch_core import cli


@pytest.fixture
def anarch(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[object, str, str]]:
    """Runs a command line in a folder of its own; gives its exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def anarch(*args: str) -> tuple[object, str, str]:
        with pytest.raises(SystemExit) as caught:
            cli.main(args)
        captured = capsys.readouterr()
        return caught.value.code, captured.out, captured.err

    return anarch
