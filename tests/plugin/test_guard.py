"""What a plugin does while it is imported reaches nobody else, and a crash is told at the next start."""

from __future__ import annotations

import fcntl
import os
import platform
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from anarch_core.plugin.discovery import PluginRecord, Status
from anarch_core.plugin.registry import Registry

Install = Callable[..., None]

FINE = """
    from anarch_core import hookimpl
    from anarch_core.plugin import ProbeInfo

    @hookimpl
    def anarch_probes():
        return [ProbeInfo(name="odd", summary="A probe.", target="somewhere:Probe")]

"""


def loaded(name: str) -> PluginRecord:
    (record,) = [record for record in Registry.load().plugins if record.name == name]
    return record


@pytest.mark.parametrize(
    "does",
    ["print('hello')", "import os; os.write(1, b'hello')", "import sys; print('hello'); sys.stdout.close()", "import os; os.close(1)"],
)
def test_standard_output_stays_open_and_without_a_word_of_a_plugin(install: Install, capfd: pytest.CaptureFixture[str], does: str) -> None:
    install("odd", FINE + "    " + does)
    assert loaded("odd").status is Status.LOADED
    print("ours")
    os.write(1, b"ours, too\n")
    sys.stdout.flush()
    assert sorted(capfd.readouterr().out.split("\n")) == ["", "ours", "ours, too"]


def test_an_import_that_takes_too_long_is_ended(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("odd", "import time\ntry:\n    time.sleep(60)\nexcept Exception:\n    time.sleep(60)")
    monkeypatch.setenv("ANARCH_PLUGIN_SECONDS", "0.2")
    record = loaded("odd")
    assert record.status is Status.BROKEN
    assert record.error == "SlowImportError: not done after 0.2 s; ANARCH_PLUGIN_SECONDS allows more"
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


def test_ctrl_c_names_the_plugin_that_is_imported(install: Install) -> None:
    install("odd", "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(5)", version="1.2")
    with pytest.raises(KeyboardInterrupt, match=r"while plugin 'odd' \(odd 1.2\) was imported; ANARCH_DISABLE_PLUGINS=odd leaves it out"):
        Registry.load()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


class TestNote:
    """The note of a process that is gone, or still there."""

    @pytest.fixture
    def note(self, install: Install, tmp_path: Path) -> Path:
        install("odd", FINE)
        folder = tmp_path / "state" / "anarch" / "importing"
        folder.mkdir(parents=True)
        return folder / f"{platform.node() or 'localhost'}-1"

    def test_a_crash_is_told_once(self, note: Path, recwarn: pytest.WarningsRecorder) -> None:
        note.write_text("odd\nodd 1.2\nFatal Python error: Segmentation fault\n\nCurrent thread\n")
        Registry.load()
        Registry.load()
        assert [str(warning.message) for warning in recwarn] == [
            "plugin 'odd' (odd 1.2) crashed the interpreter (Segmentation fault) when it was last imported; "
            "ANARCH_DISABLE_PLUGINS=odd leaves it out, 'anarch plugins doctor odd' looks at it in a process of its own"
        ]
        assert not list(note.parent.iterdir())

    def test_leaving_the_program_is_told(self, note: Path) -> None:
        note.write_text("odd\nodd 1.2\nleft by os._exit(3)\n")
        with pytest.warns(UserWarning, match=r"plugin 'odd' \(odd 1.2\) ended the program by os._exit\(3\) when"):
            Registry.load()

    @pytest.mark.parametrize("text", ["odd\nodd 1.2\n", "", "odd", "\0" * 9])
    def test_a_process_that_was_killed_says_nothing_against_a_plugin(self, note: Path, recwarn: pytest.WarningsRecorder, text: str) -> None:
        note.write_text(text)
        Registry.load()
        assert not list(recwarn)
        assert not note.exists()

    def test_one_that_is_still_there_is_left_alone(self, note: Path, recwarn: pytest.WarningsRecorder) -> None:
        note.write_text("odd\nodd 1.2\nFatal Python error: Segmentation fault\n")
        with note.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            Registry.load()
        assert not list(recwarn)
        assert note.exists()

    def test_without_a_place_for_notes_plugins_are_loaded_all_the_same(self, note: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_STATE_HOME", "/dev/null/nowhere")
        assert loaded("odd").status is Status.LOADED
