"""``--quiet`` and ``--json`` of run, resume and report: nothing but errors, and one document whatever happens."""

from __future__ import annotations

import json
import textwrap

import pytest

from anarch_core import cli
from anarch_core.cli.saying import wants_document
from anarch_core.experiment.results import Results
from anarch_core.report import catalogue

TINY = [
    *("--relax", "efcn", "--switch", "at:1", "--control", "none", "--epochs", "1", "--branch-epochs", "1"),
    *("--train-limit", "50", "--cnn1d-channels", "4", "--jobs", "1", "--device", "cpu", "--out", "run"),
]

pytestmark = pytest.mark.usefixtures("mnist1d", "one_figure")


def test_quiet_says_nothing_where_all_is_well(anarch, tmp_path):
    assert anarch("run", *TINY, "--quiet") == (0, "", "")
    assert Results.read(tmp_path / "run").status == "finished"
    (tmp_path / "run" / "report.html").unlink()
    assert anarch("resume", "run", "-q") == (0, "", "")
    assert (tmp_path / "run" / "report.html").exists()
    assert anarch("report", "run", "--quiet") == (0, "", "")


def test_json_is_one_document_of_what_came_out(anarch, tmp_path):
    code, out, err = anarch("run", *TINY, "--json")
    found = json.loads(out)
    assert (code, found["status"], found["exit_code"]) == (0, "finished", 0)
    assert "trunk, seed 0" in err  # progress
    expected = Results.read(tmp_path / "run")
    assert [segment["id"] for segment in found["segments"]] == [segment.id for segment in expected.segments]
    assert [segment["final"] for segment in found["segments"]] == [segment.to_json()["final"] for segment in expected.segments]
    assert not any(name in found["segments"][0] for name in ("history", "probe_details"))
    assert (tmp_path / found["results"]).exists()
    assert (tmp_path / found["report"]).exists()
    assert (found["failed"], found["skipped"], found["data"], found["model"]) == ({}, {}, "mnist1d", "cnn1d")
    assert anarch("resume", "run", "--json", "--quiet") == (0, out, "")


def test_machines_of_several_kinds_are_told_where_results_are(anarch):
    anarch("run", *TINY, "--threads", "1", "--quiet")
    more = ["run", *TINY, "--threads", "2", "--probe", "weights"]
    code, out, _ = anarch(*more)
    told = "Machines of 2 kinds worked on its segments (threads: 1, 2). They round differently"
    assert (code, told in " ".join(out.split())) == (0, True)
    assert anarch(*more, "--quiet") == (0, "", "")
    assert [machine["threads"] for machine in json.loads(anarch(*more, "--json", "--quiet")[1])["segments"][0]["machines"]] == [1, 2]


def test_a_report_says_what_was_written_where(anarch, tmp_path):
    anarch("run", *TINY, "--quiet")
    code, out, err = anarch("report", "run", "--json")
    found = json.loads(out)
    assert (code, err, found["status"], found["report"]) == (0, "", "finished", "run/report.html")
    [files] = found["figures"].values()
    assert all((tmp_path / file).exists() for file in files)
    assert (found["left_out"], found["damaged"]) == ({}, [])


@pytest.mark.parametrize(
    ("args", "code", "status", "message"),
    [
        (["run", "--json", "--relax", "efnc"], 1, "error", "unknown relaxation 'efnc'; did you mean 'efcn'?"),
        (["run", "--relax", "efnc", "--json", "--quiet"], 1, "error", "unknown relaxation 'efnc'"),
        (["run", "--json", "--epochs", "many"], 2, "error", "Invalid value for '--epochs'"),
        (["run", "--epoch", "3", "--json"], 2, "error", "No such option '--epoch'"),
        (["resume", "nowhere", "--json"], 1, "error", "nowhere holds no run"),
        (["report", "nowhere", "--json"], 1, "error", "nowhere"),
        (["report", "--json"], 2, "error", "Missing argument"),
    ],
)
def test_a_failure_is_a_document_too_and_is_told_on_standard_error(anarch, args, code, status, message):
    found_code, out, err = anarch(*args)
    found = json.loads(out)
    assert (found_code, found["exit_code"], found["status"]) == (code, code, status)
    assert message in found["error"]
    assert message in err


@pytest.mark.parametrize("flags", [["--quiet"], ["--json", "--quiet"]])
def test_segments_that_fail_are_errors(anarch, monkeypatch, flags):
    def failing(*_):
        raise ZeroDivisionError("no luck")

    monkeypatch.setattr("anarch_core.segment.execution.training_from", failing)
    code, out, err = anarch("run", *TINY, *flags)
    assert code == 1
    assert "trunk, seed 0 failed: ZeroDivisionError: no luck" in err
    assert "skipped: trunk, seed 0 did not get there" in err
    if "--json" in flags:
        found = json.loads(out)
        assert (found["status"], found["exit_code"], found["report"], found["segments"]) == ("failed", 1, None, [])
        assert [segment["title"] for segment in found["failed"].values()] == ["trunk, seed 0"]
    else:
        assert out == ""


def test_an_interrupted_run_is_a_document(anarch, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("anarch_core.running.runner.run", interrupted)
    code, out, _ = anarch("run", *TINY, "--json")
    assert (code, json.loads(out)["status"], json.loads(out)["exit_code"]) == (130, "interrupted", 130)


def test_a_bug_is_a_document_before_its_traceback(capsys, monkeypatch):
    monkeypatch.setattr("anarch_core.running.runner.run", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["run", *TINY, "--json"])
    assert json.loads(capsys.readouterr().out)["error"] == "ZeroDivisionError: division by zero"


def test_what_a_plugin_prints_does_not_come_between(python, tmp_path, signals):
    (tmp_path / "talking.py").write_text(
        textwrap.dedent("""
        import os
        from anarch_plugins.models.cnn1d import model

        def build(input_shape, classes):
            from types import SimpleNamespace
            print("hello"); os.write(1, b"from below")
            return model.build(input_shape, classes, SimpleNamespace(channels=3))
        """)
    )
    small = ["--data", f"tensors:{signals}", "--batch-size", "10", *TINY]
    small = [word for word in small if word not in ("--cnn1d-channels", "4")]
    ran = python.anarch("run", *small, "--model", "talking:build", "--json", folder=tmp_path, environment={"PYTHONPATH": str(tmp_path)})
    assert json.loads(ran.stdout)["exit_code"] == ran.returncode == 0, ran.stderr
    assert "hello" in ran.stderr
    assert "from below" in ran.stderr


def test_what_is_left_out_of_a_report_is_not_said_in_quiet(anarch, monkeypatch):
    anarch("run", *TINY, "--quiet")
    monkeypatch.setattr("anarch_core.report.writer.figures", lambda: [figure for figure in catalogue.figures() if figure.info.needs][:1])
    assert "left out: " in anarch("report", "run")[1]
    assert anarch("report", "run", "--quiet")[1] == ""
    assert len(json.loads(anarch("report", "run", "--json")[1])["left_out"]) == 1


@pytest.mark.parametrize(
    ("args", "wanted"),
    [
        (["run", "--json"], True),
        (["--debug", "report", "x", "--json"], True),
        (["run", "--relax", "efcn"], False),
        (["interpolate", "a", "b", "--json", "file"], False),
        (["inspect", "file", "--json"], False),
        ([], False),
    ],
)
def test_which_commands_have_a_document_for_a_failure(args, wanted):
    assert wants_document(args) is wanted
