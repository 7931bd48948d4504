"""Events as lines of text: what is read is what was told, or nothing."""

from __future__ import annotations

import pytest

from anarch_core.experiment.events import Event
from anarch_core.experiment.segment_result import Notes, Scores
from anarch_core.workers import event_from_line, event_to_line

ROW = {"epoch": 1.0, "train_loss": 0.1 + 0.2, "test_loss": None}
NOTES = Notes(start=Scores(train_loss=0.5, test_loss=None), probes={"delta": {"start": {"off_local": 1e-300}}}, switches=[3])


@pytest.mark.parametrize(
    "event",
    [
        Event("placed", "a", "Slurm job 17 on n1, GPU 0"),
        Event("started", "a"),
        Event("begun", "a", {"iteration": 4, "rows": (ROW, ROW), "notes": NOTES}),
        Event("scored", "a", ROW),
        Event("trained", "a", (12, ROW)),
        Event("trained", "a", (12, None)),
        Event("measuring", "a", "delta: \u2028 line\nbreak"),
        Event("measured", "a", {"probe": "p", "moment": "end", "values": {"x": 1.5}, "units": {}, "note": None}),
        Event("snapshot", "a", 12),
        Event("saved", "a"),
        Event("switch", "a", 12),
        Event("warning", "a", "é"),
    ],
    ids=lambda event: event.kind,
)
def test_what_is_read_is_what_was_told(event):
    line = event_to_line(event)
    assert line.count(b"\n") == 1
    found = event_from_line(line, "a")
    assert found == event
    assert type(found.value) is type(event.value)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b'["trained", [12, {"epo',
        b"\xff\n",
        b"12\n",
        b'["a"]\n',
        b'["a", 1, 2]\n',
        b'{"a": 1, "b": 2}\n'[:-2],
        b"[1, 2]\n",
        b'["trained", 3]\n',
        b'["trained", ["x", null]]\n',
        b'["trained", [1, 7]]\n',
        b'["begun", null]\n',
        b'["begun", {"iteration": 1, "rows": [1], "notes": {}}]\n',
        b'["begun", {"iteration": 1, "rows": [], "notes": {"switches": "x"}}]\n',
        b"[" * 100_000,
    ],
)
def test_anything_else_is_none(line):
    assert event_from_line(line, "a") is None
