"""What a run says in a notebook."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import attrs
import pytest

from anarch_core.config.learning_rate import LearningRate
from anarch_core.errors import ConfigError, MissingDependencyError, PluginError
from anarch_core.experiment.results import Results
from anarch_core.experiment.segments import Segment, Settings, Task, Transition
from anarch_core.running.notebook import DRAWN_EVERY, NotebookDisplay, in_notebook
from anarch_core.running.progress import Lines
from anarch_core.running.showing import make_progress
from anarch_core.running.standing import LOOKED_AT_EVERY

TRUNK = Segment(
    kind="trunk",
    task=Task(data="mnist1d", model="cnn1d"),
    seed=0,
    settings=Settings(iterations=400, batch_size=100, optimizer="sgd", learning_rate=LearningRate(base=0.1, epochs=10)),
)
SCRATCH = attrs.evolve(TRUNK, kind="scratch", relaxation="efcn", transition=Transition(action="scratch", relaxation="efcn"))


class Output:
    """A cell's output: how often it was drawn, and what it shows now."""

    def __init__(self) -> None:
        self.drawn, self.text, self.html = 0, "", ""

    def display(self, bundle: dict[str, str], *, raw: bool, display_id: bool) -> Output:
        assert raw
        assert display_id
        return self.update(bundle, raw=raw)

    def update(self, bundle: dict[str, str], *, raw: bool) -> Output:
        self.drawn += 1
        self.text, self.html = bundle["text/plain"], bundle["text/html"]
        return self


@pytest.fixture
def output(monkeypatch):
    output = Output()
    ipython, module = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    module.display = output.display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return output


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("anarch_core.running.notebook.time.monotonic", lambda: now[0])
    return now


def test_a_kernel_is_known_by_its_shell(output, monkeypatch):
    assert in_notebook()
    assert isinstance(make_progress(), NotebookDisplay)
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: types.SimpleNamespace())
    assert not in_notebook()  # a terminal of IPython
    monkeypatch.delitem(sys.modules, "IPython")
    assert not in_notebook()
    assert isinstance(make_progress(), Lines)


def test_one_display_shows_what_is_under_way(output, clock):
    with NotebookDisplay() as display:
        display.planned([TRUNK, SCRATCH])
        display.started(TRUNK)
        clock[0] += DRAWN_EVERY
        display.trained(TRUNK, 100, {"epoch": 2, "train_loss": 1.0, "train_accuracy": 56.789})
        assert "0 of 2 segments" in output.html
        assert '<progress value="100" max="800"' in output.html
        assert '<progress value="100" max="400"' in output.html
        assert "train accuracy 56.79" in output.html
        clock[0] += DRAWN_EVERY
        display.measuring(TRUNK, "hessian: <3/8>")
        assert "hessian: &lt;3/8&gt;" in output.html


def test_it_shows_who_trains_and_how_many_wait(output, clock):
    with NotebookDisplay() as display:
        display.planned([TRUNK, SCRATCH])
        display.placed(TRUNK, "node2, <GPU 0>")
        display.started(TRUNK)
        clock[0] += DRAWN_EVERY
        display.placed(SCRATCH, "waits as Slurm job 17")
        assert '<td style="text-align: left">node2, &lt;GPU 0&gt;</td>' in output.html
        assert "waits as Slurm job 17" in output.html
        assert "0 of 2 segments, 1 waiting" in output.html
        clock[0] += DRAWN_EVERY
        display.lost(TRUNK)
        assert "node2" not in output.html


def test_it_shows_the_table_as_it_fills(output, clock):
    with NotebookDisplay() as display:
        display.planned([TRUNK, SCRATCH])
        clock[0] += DRAWN_EVERY
        display.found(Results(path=Path("x"), data="mnist1d", model="cnn1d", status="running"))
        assert cells(output) == [["trunk", "", "", "", "", "coming"], ["scratch efcn", "", "", "", "", "coming"]]
        display.started(TRUNK)
        display.scored(TRUNK, {"epoch": 0, "test_accuracy": 10.0})
        clock[0] += LOOKED_AT_EVERY
        display.trained(TRUNK, 100, {"epoch": 2, "train_accuracy": 56.789, "test_accuracy": 50.0})
        assert cells(output)[0] == ["trunk", "", "10.0", "56.8", "50.0", "25 %"]
        display.ended(TRUNK, "failed: no luck")
        display.found(Results(path=Path("x"), data="mnist1d", model="cnn1d", status="running"))
        clock[0] += LOOKED_AT_EVERY
        display.say("loading")
        assert cells(output)[0] == ["trunk", "", "", "", "", "failed"]
        assert "t_w: epoch of the switch" in output.html
    assert "<th" not in output.html


def cells(output):
    """Of the table of results."""
    body = output.html.partition("<tbody>")[2].partition("</tbody>")[0]
    return [re.findall("<td[^>]*>(.*?)</td>", row) for row in re.findall("<tr>(.*?)</tr>", body)]


def test_a_notebook_is_not_flooded(output, clock):
    with NotebookDisplay() as display:
        display.planned([TRUNK])
        for step in range(1, 401):
            clock[0] += DRAWN_EVERY / 100
            display.trained(TRUNK, step, None)
    assert output.drawn <= 4 + 2


def test_what_stays_is_a_line_with_each_segment_folded(output, clock):
    with NotebookDisplay() as display:
        display.planned([TRUNK, SCRATCH])
        display.ended(SCRATCH, "", before=True)
        display.say("loading mnist1d")
        clock[0] += 7
        display.ended(TRUNK, "train 99.0 %, test 88.8 % (7 s)")
    assert output.text == "2 of 2 segments: 1 trained in 7 s, 1 was there before"
    assert output.html.startswith(f"<div>{output.text}</div><details>")
    assert "<div>trunk, seed 0: train 99.0 %, test 88.8 % (7 s)</div>" in output.html
    assert "<progress" not in output.html


def test_what_went_wrong_is_not_folded(output):
    with NotebookDisplay() as display:
        display.planned([TRUNK])
        display.say("warning: <it> is hot")
        display.ended(TRUNK, "failed: no luck")
    assert output.text.splitlines()[0].endswith(": 0 trained in 0 s, 1 failed or skipped")
    assert output.text.splitlines()[1:] == ["warning: <it> is hot", "trunk, seed 0: failed: no luck"]
    assert "<div>warning: &lt;it&gt; is hot</div><div>trunk, seed 0: failed: no luck</div>" in output.html
    assert "<details>" not in output.html


def test_it_closes_when_the_cell_is_interrupted(output):
    display = NotebookDisplay().__enter__()
    display.planned([TRUNK])
    display.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert output.text.startswith("0 of 1 segments: 0 trained")


def test_without_ipython_it_says_what_to_take(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython.display", None)
    with pytest.raises(MissingDependencyError, match="take 'bars' or 'lines'"), make_progress("notebook"):
        pass


def test_another_style_is_refused():
    with pytest.raises(ConfigError, match="expected auto, bars, notebook, lines, silent or an AbstractProgress, got 'loud'"):
        make_progress("loud")


def test_an_error_of_anarchs_is_shown_without_its_inside():
    def called_by_me():
        make_progress("loud")

    with pytest.raises(ConfigError) as caught:
        called_by_me()
    shown = "\n".join(caught.value._render_traceback_())
    assert 'make_progress("loud")' in shown
    assert "showing.py" not in shown
    assert shown.splitlines()[-1] == f"ConfigError: {caught.value}"


def test_what_a_component_raised_is_shown_whole():
    def component():
        return {}["missing"]

    def core():
        try:
            component()
        except KeyError as error:
            msg = "probe 'x' raised"
            raise PluginError(msg) from error

    with pytest.raises(PluginError) as caught:
        core()
    shown = "\n".join(caught.value._render_traceback_())
    assert 'return {}["missing"]' in shown
    assert shown.index("KeyError: 'missing'") < shown.index("PluginError: probe 'x' raised")
