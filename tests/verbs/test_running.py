"""Runs from Python, with settings as keywords."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

import anarch_core
from anarch_core.data import TensorData
from anarch_core.errors import ConfigError, DataError, RunError
from anarch_core.experiment.segments import Segment
from anarch_core.running.progress import Silent
from anarch_core.segment.stopping import SIGNALS, InterruptedRunError


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


def test_a_plan_refuses_what_a_run_would_refuse(settings):
    settings["out"].mkdir()
    (settings["out"] / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="neither empty nor a run directory"):
        anarch_core.plan(**settings, timed=False)


def test_a_model_of_a_notebook_is_trained_here_and_resumed_when_it_is_given_again(settings, in_main):
    own = {**settings, "model": in_main, "options": {}, "jobs": 2}
    results = anarch_core.run(**own, progress="silent")
    assert (results.model, results.status, results.failed) == ("__main__:Net", "finished", {})
    with pytest.raises(ConfigError, match="give it again from Python: model=Net"):
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
    with pytest.raises(InterruptedRunError, match=r"go on in this script or notebook: anarch_core\.resume\('.*', model=Net\)"):
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


@pytest.fixture
def arrays():
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(60) % 3
    x = torch.sin(torch.arange(16) * (y[:, None] + 1) * 0.7)[:, None, :] + 0.5 * torch.randn(60, 1, 16, generator=generator)
    return (x[:40], y[:40]), (x[40:].numpy(), y[40:].numpy())


def test_data_may_be_arrays_which_this_process_holds(settings, arrays, monkeypatch):
    own = {**settings, "data": arrays, "jobs": 2}
    results = anarch_core.run(**own, progress="silent")
    assert re.fullmatch(r"anarch_core\.data\.held:given_[0-9a-f]{8}", results.data)
    assert (results.status, results.failed) == ("finished", {})
    assert anarch_core.resume(own["out"], data=arrays, progress="silent") == results
    with pytest.raises(ConfigError, match=r"which only you may name, not a file; give it again from Python: data=\.\.\."):
        anarch_core.resume(own["out"], progress="silent")
    monkeypatch.setattr("anarch_core.data.held._HELD", {})  # another process
    with pytest.raises(DataError, match=r"were given as an object, and this process does not have them; give the same again, data=\.\.\."):
        anarch_core.resume(own["out"], data=results.data, progress="silent")


def test_other_data_are_another_experiment(settings, arrays):
    anarch_core.run(**{**settings, "data": arrays}, progress="silent")
    (x, y), test = arrays
    with pytest.raises(RunError, match="data"):
        anarch_core.run(**{**settings, "data": ((x + 1, y), test)}, progress="silent")


def test_a_data_set_of_tensors_keeps_its_name(settings, arrays):
    (x, y), (x_test, y_test) = arrays
    data = TensorData(name="My digits", x_train=x, y_train=y, x_test=torch.from_numpy(x_test), y_test=torch.from_numpy(y_test), classes=3)
    assert anarch_core.plan(**{**settings, "data": data}, timed=False).config.data.startswith("anarch_core.data.held:my_digits_")


def test_arrays_have_the_targets_that_the_objective_takes(settings, arrays):
    (x, y), (x_test, y_test) = arrays
    numbers = (x, y.float()), (x_test, y_test.astype("float32"))
    assert anarch_core.plan(**{**settings, "data": numbers, "objective": "mse"}, timed=False).refusal is None
    with pytest.raises(DataError, match="targets of a regression"):
        anarch_core.plan(**{**settings, "data": numbers}, timed=False)


@pytest.mark.parametrize("data", [torch.zeros(3, 1, 4), [1, 2], object()])
def test_what_is_no_data_is_refused(settings, data):
    with pytest.raises(DataError, match="expected"):
        anarch_core.run(**{**settings, "data": data}, progress="silent")
    assert not settings["out"].exists()
