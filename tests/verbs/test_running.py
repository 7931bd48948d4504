"""Runs from Python, with settings as keywords."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import pytest
from torch import nn

import anarch_core
from anarch_core.errors import ConfigError, RunError
from anarch_core.experiment.segments import Segment
from anarch_core.running.progress import Silent
from anarch_core.running.stopping import SIGNALS, InterruptedRunError


class Net(nn.Sequential):
    """A network of a notebook: pickled by nobody, found as ``__main__:Net``."""

    def __init__(self, classes: int) -> None:
        super().__init__(nn.Conv1d(1, 2, 5), nn.ReLU(), nn.Flatten(), nn.Linear(24, classes))


@pytest.fixture
def settings(signals, tmp_path):
    return {
        "data": f"tensors:{signals}",
        "model": "cnn1d",
        "relax": "lcn",
        "batch_size": 10,
        "epochs": 2,
        "branch_epochs": 1,
        "switch": "at:1",
        "device": "cpu",
        "jobs": 1,
        "threads": 1,
        "options": {"cnn1d": {"channels": 3}},
        "out": tmp_path / "run",
    }


@pytest.fixture
def in_main(monkeypatch):
    monkeypatch.setattr(Net, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "Net", Net, raising=False)
    return Net


class Interrupting(Silent):
    """Interrupts, as the button of a notebook does, when the first epoch is done."""

    def __init__(self) -> None:
        self.told = False

    def trained(self, segment: Segment, iteration: int, row: object) -> None:
        if not self.told:
            self.told = True
            os.kill(os.getpid(), signal.SIGINT)


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in SIGNALS]


def contents(folder: Path) -> dict[str, bytes]:
    return {file.parent.name: file.read_bytes() for file in folder.glob("segments/*/final.safetensors")}


def test_a_run_is_made_of_keywords_and_gone_on_with(settings):
    results = anarch_core.run(**settings, progress="silent")
    assert results.status == "finished"
    assert results.path == settings["out"]
    assert {segment.kind for segment in results.segments} == {"trunk", "branch", "continued", "scratch"}
    assert anarch_core.run(**settings, progress="silent") == results
    assert anarch_core.resume(settings["out"], progress="silent") == results


def test_without_a_folder_the_same_settings_find_their_run_again(settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    del settings["out"]
    results = anarch_core.run(**settings, progress="silent")
    assert results.path.parent == Path("runs")
    assert anarch_core.run(**settings, progress="silent") == results


def test_a_plan_takes_the_same_keywords(settings):
    plan = anarch_core.plan(**settings, timed=False)
    assert [segment.kind for segment in plan.segments].count("branch") == 1
    assert not settings["out"].exists()


def test_a_model_of_a_notebook_is_trained_here_and_resumed_when_it_is_given_again(settings, in_main):
    own = {**settings, "model": in_main, "options": {}, "jobs": 2}
    results = anarch_core.run(**own, progress="silent")
    assert (results.model, results.status, results.failed) == ("__main__:Net", "finished", {})
    with pytest.raises(ConfigError, match="pass it again from Python: model=Net"):
        anarch_core.resume(own["out"], progress="silent")
    assert anarch_core.resume(own["out"], model=in_main, progress="silent") == results


def test_an_interrupted_cell_leaves_handlers_as_they_were_and_the_same_call_goes_on(settings, tmp_path):
    found = handlers()
    with pytest.raises(InterruptedRunError, match="go on with: anarch resume"):
        anarch_core.run(**settings, progress=Interrupting())
    assert handlers() == found
    anarch_core.run(**settings, progress="silent")
    anarch_core.run(**{**settings, "out": tmp_path / "whole"}, progress="silent")
    assert contents(tmp_path / "run") == contents(tmp_path / "whole") != {}


def test_an_interrupted_model_of_a_notebook_says_how_it_goes_on(settings, in_main):
    own = {**settings, "model": in_main, "options": {}}
    with pytest.raises(InterruptedRunError, match=r"go on where Net is defined: anarch_core\.resume\('.*', model=Net\)"):
        anarch_core.run(**own, progress=Interrupting())
    assert anarch_core.resume(own["out"], model=in_main, progress="silent").status == "finished"


def test_a_run_in_a_thread_sets_no_handlers(settings):
    found, done = handlers(), []
    thread = threading.Thread(target=lambda: done.append(anarch_core.run(**settings, progress="silent")))
    thread.start()
    thread.join()
    assert [results.status for results in done] == ["finished"]
    assert handlers() == found


def test_no_run_is_no_traceback(tmp_path):
    with pytest.raises(RunError, match="holds no run"):
        anarch_core.resume(tmp_path)
