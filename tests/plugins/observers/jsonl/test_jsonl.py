"""A line for every event, each fact once, in a file that every process of a run goes on with."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from anarch_core.errors import OptionError, RunError
from anarch_core.observer import RunBegun
from anarch_core.plugin import get_registry
from anarch_core.testing.observer import BRANCH, TRUNK, failing, resumed, stopped, whole


def tell(story, **options):
    observer = get_registry().create("observer", "jsonl", options)
    try:
        for event in story:
            observer.observe(event)
    finally:
        observer.close()


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def facts(found):
    return Counter((line["event"], line.get("segment"), line.get("epoch"), line.get("moment")) for line in found)


def test_a_run_is_written_as_it_is_told(tmp_path):
    tell(whole(tmp_path))
    assert lines(tmp_path / "events.jsonl") == [json.loads(json.dumps(event.to_json())) | {"time": line["time"]} for event, line in zip(
        whole(tmp_path), lines(tmp_path / "events.jsonl"), strict=True)]  # fmt: skip


def test_a_run_in_parts_has_each_fact_once(tmp_path):
    tell(whole(tmp_path / "at-once"))
    tell(stopped(tmp_path / "in-parts"))
    before = (tmp_path / "in-parts" / "events.jsonl").read_bytes()
    tell(resumed(tmp_path / "in-parts"))
    tell(whole(tmp_path / "in-parts", earlier=True))
    after = (tmp_path / "in-parts" / "events.jsonl").read_bytes()
    assert after.startswith(before)
    of_the_moment = {"run_begun", "run_finished", "segment_started", "switch_found"}
    found, expected = ([line for line in lines(path / "events.jsonl") if line["event"] not in of_the_moment]
                       for path in (tmp_path / "in-parts", tmp_path / "at-once"))  # fmt: skip
    assert facts(found) == facts(expected)
    begun = [line["resumed"] for line in lines(tmp_path / "in-parts" / "events.jsonl") if line["event"] == "run_begun"]
    assert begun == [False, True, True]


def test_a_line_that_a_killed_process_did_not_finish_is_taken_away(tmp_path):
    tell(stopped(tmp_path))
    file = tmp_path / "events.jsonl"
    whole_lines = file.read_bytes()
    file.write_bytes(whole_lines[:-20])
    tell(resumed(tmp_path))
    assert file.read_bytes().startswith(whole_lines[: whole_lines[:-1].rindex(b"\n") + 1])
    assert {line["segment"] for line in lines(file) if line["event"] == "segment_finished"} == {TRUNK.id, BRANCH.id}


def test_an_observer_that_comes_late_writes_everything(tmp_path):
    tell(whole(tmp_path, earlier=True))
    assert facts(lines(tmp_path / "events.jsonl"))["epoch_done", BRANCH.id, 2, None] == 1


def test_what_happens_again_is_written_again(tmp_path):
    for _ in range(2):
        tell(failing(tmp_path))
    found = [line["event"] for line in lines(tmp_path / "events.jsonl")]
    assert (found.count("segment_failed"), found.count("warned"), found.count("epoch_done")) == (2, 4, 1)


def test_another_file_counts_from_the_run_directory(tmp_path):
    tell(whole(tmp_path / "run"), path="logs/told.jsonl")
    assert (tmp_path / "run" / "logs" / "told.jsonl").exists()
    tell(whole(tmp_path / "run"), path=str(tmp_path / "elsewhere.jsonl"))
    assert (tmp_path / "elsewhere.jsonl").exists()


def test_a_file_of_something_else_is_refused_and_left_as_it_was(tmp_path):
    for number, text in enumerate(('{"epoch": 1}\n', "no json\n", "[1]\n")):
        file = tmp_path / f"{number}.jsonl"
        file.write_text(text)
        with pytest.raises(RunError, match=r"holds something else than events, and nothing is appended to it; choose another file with"):
            tell(whole(tmp_path), path=file.name)
        assert file.read_text() == text


def test_a_link_or_a_folder_in_its_place_is_refused(tmp_path):
    (tmp_path / "target").touch()
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "target")
    (tmp_path / "folder.jsonl").mkdir()
    for name in ("link.jsonl", "folder.jsonl"):
        with pytest.raises(RunError, match="is no file of its own"):
            tell(whole(tmp_path), path=name)
    assert (tmp_path / "target").read_text() == ""


def test_the_name_says_what_it_is():
    with pytest.raises(OptionError, match=r"ends with \.jsonl: \.bashrc"):
        get_registry().create("observer", "jsonl", {"path": ".bashrc"})


def test_each_line_is_there_as_soon_as_it_is_told(tmp_path):
    observer = get_registry().create("observer", "jsonl")
    observer.observe(RunBegun(run="r", path=str(tmp_path), config={}, environment={}, resumed=False))
    assert len(lines(tmp_path / "events.jsonl")) == 1
    observer.close()
