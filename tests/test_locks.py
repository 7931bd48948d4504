"""One process at a time holds a folder, also where the file system knows no locks."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
import warnings
from pathlib import Path

import pytest

from anarch_core.errors import RunError
from anarch_core.files.locks import LOCK, locked
from anarch_core.running.runner import run

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@pytest.fixture
def own_tmp(tmp_path, monkeypatch):
    """The temporary folder of the machine, which has locks."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def without_locks(monkeypatch, folder: Path, number: int) -> None:
    """Mounts ``folder`` in a way that answers every wish for a lock with an error."""
    real = fcntl.flock

    def flock(file, how):
        if Path(f"/proc/self/fd/{file.fileno()}").readlink().is_relative_to(folder):
            raise OSError(number, os.strerror(number))
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)


def test_it_says_who_holds_it_and_on_which_machine(tmp_path):
    with locked(tmp_path / LOCK, wait=False):
        assert (tmp_path / LOCK).read_text() == f"{os.getpid()} {os.uname().nodename}\n"
        with pytest.raises(RunError, match=rf"in use by another process \({os.getpid()}\)"), locked(tmp_path / LOCK, wait=False):
            pass
        (tmp_path / LOCK).write_text("17 n2\n")
        with pytest.raises(RunError, match=r"in use by another process \(17 on n2\); wait"), locked(tmp_path / LOCK, wait=False):
            pass
        (tmp_path / LOCK).write_bytes(b"\xff what")
        with pytest.raises(RunError, match="in use by another process; wait"), locked(tmp_path / LOCK, wait=False):
            pass


@pytest.mark.parametrize("number", NO_LOCKS, ids=errno.errorcode.get)
class TestWithoutLocks:
    def test_who_takes_a_directory_is_told_that_other_machines_are_not_kept_out(self, tmp_path, own_tmp, monkeypatch, number):
        run = tmp_path / "run"
        without_locks(monkeypatch, run, number)
        with contextlib.ExitStack() as stack:
            with pytest.warns(RuntimeWarning, match=f"the file system of {run} has no locks"):
                stack.enter_context(locked(run / LOCK, wait=False))
            with pytest.raises(RunError, match=rf"in use by another process \({os.getpid()}\)"), locked(run / LOCK, wait=False):
                pass
            assert list(own_tmp.iterdir())
        assert not list(own_tmp.iterdir())
        assert (run / LOCK).read_text() == ""

    def test_who_waits_is_told_nothing_and_waits_for_what_runs_on_this_machine(self, tmp_path, own_tmp, monkeypatch, number):
        without_locks(monkeypatch, tmp_path / "run", number)
        path, heard = tmp_path / "run" / LOCK, []
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            first = locked(path, wait=True)
            first.__enter__()

            def waiting(holder: str) -> None:
                heard.append(holder)
                first.__exit__(None, None, None)

            with locked(path, wait=True, waiting=waiting):
                assert heard == [str(os.getpid())]

    def test_what_another_machine_wrote_is_told(self, tmp_path, own_tmp, monkeypatch, number):
        without_locks(monkeypatch, tmp_path / "run", number)
        path = tmp_path / "run" / LOCK
        path.parent.mkdir()
        path.write_text("17 n2\n")
        with pytest.warns(RuntimeWarning, match="; process 17 on n2 was at work in it when last heard of"), locked(path, wait=False):
            assert path.read_text().startswith(f"{os.getpid()} ")

    def test_where_nothing_has_locks_work_goes_on(self, tmp_path, own_tmp, monkeypatch, number):
        without_locks(monkeypatch, tmp_path, number)
        with pytest.warns(RuntimeWarning, match="has no locks"), locked(tmp_path / "run" / LOCK, wait=False):
            pass


def test_another_error_is_not_taken_for_a_lack_of_locks(tmp_path, own_tmp, monkeypatch):
    without_locks(monkeypatch, tmp_path, errno.EIO)
    with pytest.raises(OSError, match="Input/output"), locked(tmp_path / LOCK, wait=False):
        pass


def test_a_run_works_there_and_says_it_once(tmp_path, own_tmp, monkeypatch, small, one_figure):
    without_locks(monkeypatch, tmp_path / "run", errno.ENOLCK)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        results = run(small(switch="at:1", epochs=1, branch_epochs=1), out=tmp_path / "run", progress="silent")
    assert results.status == "finished"
    assert ["has no locks" in str(warning.message) for warning in told].count(True) == 1
