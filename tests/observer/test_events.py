"""Events are records of plain values that nobody can change, and lines of JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path

import attrs
import pytest

from anarch_core import observer
from anarch_core.observer import EpochDone, Event, Measured, RunBegun, SegmentsPlanned, flattened
from anarch_core.testing.observer import BRANCH, TRUNK, failing, resumed, stopped, whole


def every_event() -> list[Event]:
    path = Path("run")
    return [event for story in (whole, stopped, resumed, failing) for event in story(path)]


def test_samples_have_every_kind_of_event(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    concrete = {getattr(observer, name) for name in observer.__all__} - {observer.SegmentEvent, Event}
    kinds = {kind for kind in concrete if isinstance(kind, type) and issubclass(kind, Event)}
    assert {type(event) for event in every_event()} == kinds
    assert len({kind.name for kind in kinds}) == len(kinds)


def test_every_event_is_a_line_of_json_that_names_its_segment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for event in every_event():
        line = json.loads(json.dumps(event.to_json(), allow_nan=False))
        assert line["event"] == event.name
        assert set(line) == {"event", *(field.name for field in attrs.fields(type(event)))}
        if "segment" in line:
            assert line["segment"] in (TRUNK.id, BRANCH.id, None)


def test_the_tree_is_told_whole_once():
    line = SegmentsPlanned(segments=(TRUNK, BRANCH)).to_json()
    assert [(segment["id"], segment["parent"], segment["first_step"]) for segment in line["segments"]] == [
        (TRUNK.id, None, 0),
        (BRANCH.id, TRUNK.id, 4),
    ]


def test_nobody_can_change_what_another_is_told():
    config = {"run": {"seeds": [0, 1]}}
    event = RunBegun(run="r", path="/", config=config, environment={}, resumed=False)
    with pytest.raises(TypeError):
        event.config["run"]["seeds"] = (2,)
    config["run"]["seeds"].append(2)
    assert event.config["run"]["seeds"] == (0, 1)
    event.to_json()["config"]["run"].clear()
    assert event.config["run"]["seeds"] == (0, 1)


def test_scalars_are_the_numbers_that_are_there():
    row = {"epoch": 1, "train_loss": None, "train_accuracy": 50.0, "learning_rate": 0.1}
    epoch = EpochDone(segment=TRUNK, epoch=1, iteration=4, step=4, row=row)
    assert epoch.scalars == {"train_accuracy": 50.0, "learning_rate": 0.1}
    measured = Measured(segment=TRUNK, probe="delta", moment="end", step=12, values={"mean": 0.5, "largest": None})
    assert measured.scalars == {"delta.end.mean": 0.5}


def test_numbers_that_are_not_finite_are_none_in_json():
    event = Measured(segment=TRUNK, probe="delta", moment="end", step=12, values={"mean": math.inf, "list": [math.nan, 1]})
    assert event.to_json()["values"] == {"mean": None, "list": [None, 1]}


def test_nested_settings_can_be_flattened():
    assert flattened({"a": {"b": {"c": 1}, "d": [1, 2]}, "e": None}) == {"a.b.c": 1, "a.d": [1, 2], "e": None}
