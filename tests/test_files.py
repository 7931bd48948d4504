"""Files are replaced whole or not at all, and only regular ones of a size that can be are read."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from anarch_core.errors import RunError
from anarch_core.files.leftovers import remove_leftovers
from anarch_core.files.reading import read_text, reading
from anarch_core.files.replacing import make_room, open_own, replacing, write_text
from anarch_core.files.tables import read_json, read_table, require_seal, sealed, write_json


class Interruption(BaseException):
    """What a handler of a signal raises."""


def interruptions(doing: Callable[[], object]) -> Iterator[BaseException | None]:
    """What comes out of it when a signal arrives at the n-th return from C, where Python looks for signals; n from 1 until none is left."""
    left = n = 0

    def at(frame: object, event: str, _: object) -> None:
        nonlocal left
        left -= event == "c_return"
        if left == 0:
            sys.setprofile(None)
            raise Interruption

    while left <= 0:
        gc.disable()  # what is called back by it is another's
        left = n = n + 1
        with warnings.catch_warnings(action="ignore", category=ResourceWarning):  # an open file that nobody got closes itself
            sys.setprofile(at)
            try:
                doing()
            except BaseException as error:
                yield error
            finally:
                sys.setprofile(None)
                gc.enable()


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
        "import os, pathlib, signal, sys; from anarch_core.files.replacing import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1])) as file:\n"
        "    file.write(b'new'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert len(names(path.parent)) == 2
    remove_leftovers(tmp_path)
    assert names(path.parent) == ["x"]


def test_a_signal_at_any_moment_of_reading_closes_no_file_twice(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("text")

    def read() -> None:
        with reading(tmp_path / "x") as file:
            file.read()

    came = list(interruptions(read))
    assert len(came) >= 5
    assert {type(error) for error in came} == {Interruption}


@pytest.mark.parametrize("kind", ["a pipe", "a folder", "a device"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = Path("/dev/zero") if kind == "a device" else tmp_path / "x"
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    with pytest.raises(RunError, match=f"{path} is {kind}; expected a file"):
        read_json(path)


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000, "{", "\udcff"])
def test_json_that_is_none_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(RunError, match=f"cannot read {path}: ") as refused:
        read_json(path)
    assert "\n" not in str(refused.value)


def test_a_text_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("12345")
    assert read_text(path, at_most=5) == "12345"
    with pytest.raises(RunError, match="more than"):
        read_text(path, at_most=4)


@pytest.mark.parametrize("content", ["null", "[]", "3", '"text"', "[" * 900 + "]" * 900])
def test_json_that_is_no_table_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "x").write_text(content)
    with pytest.raises(RunError, match="x is not what anarch wrote: expected a table, got") as caught:
        read_table(tmp_path / "x")
    assert len(str(caught.value)) < 300


def test_a_sealed_table_that_was_altered_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_json(path, sealed({"loss": 0.1, "steps": {10: None, 9: [1, 2.0]}, "name": "δ"}))
    require_seal(read_table(path), path)
    for written, instead in (("0.1", "0.3"), ("2.0", "2"), ("digest", "digesu"), ("loss", "lossy")):
        altered = json.loads(path.read_text().replace(written, instead))
        with pytest.raises(RunError, match="x was altered"):
            require_seal(altered, path)


@pytest.mark.parametrize("mode", ["r+b", "a+b"])
def test_a_file_of_ones_own_is_opened_to_be_written_and_nothing_else_is(tmp_path: Path, mode: str) -> None:
    (tmp_path / "file").write_bytes(b"kept")
    with open_own(tmp_path / "file", mode) as file:
        assert file.read() in (b"kept", b"")
    with open_own(tmp_path / "new", mode) as file:
        file.write(b"row")
    assert ((tmp_path / "file").read_bytes(), (tmp_path / "new").read_bytes()) == (b"kept", b"row")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "nowhere").symlink_to("missing")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, what in (("link", "a link"), ("nowhere", "a link"), ("folder", "a folder"), ("pipe", "a pipe")):
        with pytest.raises(RunError, match=f"{name} is {what}; expected a file"):
            open_own(tmp_path / name, mode)
    assert not (tmp_path / "missing").exists()


def test_room_is_made_without_losing_a_folder_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("elsewhere")
    (tmp_path / "elsewhere").write_text("stays")
    (tmp_path / "empty").mkdir()
    (tmp_path / "full" / "deep").mkdir(parents=True)
    for name in ("link", "empty", "full", "missing"):
        make_room(tmp_path / name)
    aside, left = sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("full")), tmp_path / "elsewhere"
    assert len(aside) == 1
    assert (tmp_path / aside[0] / "deep").is_dir()
    assert left.read_text() == "stays"
    assert not any((tmp_path / name).is_symlink() or (tmp_path / name).exists() for name in ("link", "empty", "full"))


def test_a_folder_is_not_replaced_by_a_text(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is a folder; expected a file"):
        write_text(tmp_path, "text")
