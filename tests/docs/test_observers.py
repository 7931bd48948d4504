"""``docs/observers.md`` says what is true: its Python runs, its commands are ones, and it names every event and every built-in observer."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from anarch_core import cli, observer
from anarch_core.observer import Event, SegmentNode
from anarch_core.plugin import get_registry
from anarch_core.running import audience

TEXT = (Path(__file__).parents[2] / "docs" / "observers.md").read_text()
TABLES = re.findall(r"^\| .*", TEXT, re.MULTILINE)


def test_every_event_has_a_row():
    named = set(re.findall(r"`(\w+)`", " ".join(line.split(" | ")[0] for line in TABLES)))
    events = {name for name in observer.__all__ if name not in ("Event", "SegmentEvent") and isinstance(getattr(observer, name), type)}
    assert {name for name in events if issubclass(getattr(observer, name), Event)} <= named


def test_every_built_in_observer_has_a_row():
    for name in get_registry().names("observer"):
        assert f"| `{name}` |" in TEXT


def test_what_is_said_of_a_segment_is_there():
    paragraph = TEXT[TEXT.index("A segment is a `SegmentNode`") :].split(". ")[0]
    assert set(re.findall(r"`(\w+)`", paragraph)) - {"SegmentNode"} <= {field.name for field in SegmentNode.__attrs_attrs__}


def test_the_numbers_are_those_of_the_code():
    assert (audience.MOST_WAITING, audience.PATIENCE, audience.LONGEST) == (10_000, 20.0, 600.0)
    assert "ten thousand events" in TEXT
    assert "twenty seconds for each event" in TEXT
    assert "ten minutes for all" in TEXT


def test_the_python_runs(tmp_path, monkeypatch, mnist1d, capsys):
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE))
    names: dict = {}
    exec(code, names)
    assert names["results"].status == "finished"
    assert re.fullmatch(r"finished: \d+\.\d % by .* seed 0\n", capsys.readouterr().out)


def test_the_command_runs(tmp_path, monkeypatch, mnist1d, one_figure):
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    [command] = [line[2:] for line in TEXT.splitlines() if line.startswith("$ anarch run")]
    small = ["--epochs", "1", "--branch-epochs", "1", "--switch", "at:1", "--train-limit", "50", "--jobs", "1"]
    with pytest.raises(SystemExit) as caught:
        cli.main([*shlex.split(command)[1:], *small])
    assert caught.value.code == 0
    assert list(tmp_path.glob("runs/*/events.jsonl"))
    assert list(tmp_path.glob("runs/*/tensorboard/*"))
