"""Files are replaced whole or not at all."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from pathlib import Path

from anarch_core.files import remove_leftovers, replacing


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_the_new_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["x"]


def test_an_exception_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with contextlib.suppress(KeyboardInterrupt), replacing(path) as file:
        file.write(b"new")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["x"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    with replacing(tmp_path / "x"):
        pass
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_killed_process_leaves_the_old_file_and_something_to_clear_away(tmp_path: Path) -> None:
    path = tmp_path / "below" / "x"
    path.parent.mkdir()
    path.write_bytes(b"old")
    code = (
        "import os, pathlib, signal, sys; from anarch_core.files import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1])) as file:\n"
        "    file.write(b'new'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert len(names(path.parent)) == 2
    remove_leftovers(tmp_path)
    assert names(path.parent) == ["x"]
