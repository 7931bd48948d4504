"""The doctor survives what it looks at."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from anarch_core import cli

PLUGIN = """
    from anarch_core import hookimpl
    from anarch_core.plugin import ScheduleInfo

    @hookimpl
    def anarch_schedules():
        return [ScheduleInfo(name="odd-times", summary="Odd \\x1b[31m[bold].", target="odd_target:Odd")]

"""


@pytest.mark.parametrize(
    ("plugin", "target", "told"),
    [
        ("import os; os._exit(3)", "", "ends the program (exit code 3) when it is imported"),
        ("import time; time.sleep(60)", "", "is not done after 1 s when it is imported"),
        ("print('hello')", "raise SystemExit('gone')", "writes to standard output when it is imported: 'hello'"),
        ("", "import os; os.abort()", "crashes the interpreter (SIGABRT) when 'odd_target:Odd' is imported, the target of schedule"),
    ],
)
def test_what_a_plugin_does_to_its_process_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], plugin: str, target: str, told: str
) -> None:
    info = tmp_path / "odd_dist-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd-dist\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[anarch.plugins]\nodd = odd_plugin\n")
    (tmp_path / "odd_plugin.py").write_text(textwrap.dedent(PLUGIN) + plugin)
    (tmp_path / "odd_target.py").write_text(target)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("ANARCH_PLUGIN_SECONDS", "1" if "sleep" in plugin else "60")
    with pytest.raises(SystemExit) as left:
        cli.main(["plugins", "doctor", "odd"])
    out, err = capsys.readouterr()
    assert (left.value.code, err) == (1, "")
    assert out.startswith("odd (odd_plugin, odd-dist 1.2): ")
    assert told in out
    assert "\x1b" not in out
