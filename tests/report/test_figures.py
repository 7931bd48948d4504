"""Every figure, from results whose numbers are known."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import anarch_core.report
from anarch_core.checkpoint.state import load_state, save_state
from anarch_core.plugin import FigureInfo, ProbeInfo, Registry, get_registry
from anarch_core.plugin.discovery import PluginRecord, Status
from anarch_core.report.catalogue import OWN, figures
from anarch_core.report.evidence import FinishedRun, NothingToDrawError, Spread, history, some
from anarch_core.report.figures import style

BUILT_IN = [kind for kind in figures() if kind.info in OWN or kind.registry.plugin_of(kind.info).builtin]
BY_NAME = {kind.info.name: kind for kind in BUILT_IN}


def texts_inside(figure: Figure) -> None:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    box = figure.get_tightbbox(canvas.get_renderer())
    width, height = figure.get_size_inches()
    assert box.x0 >= -0.01
    assert box.y0 >= -0.01
    assert box.x1 <= width + 0.01
    assert box.y1 <= height + 0.01


def labelled(axes, label: str) -> np.ndarray:
    """Points that are drawn under a label, [n, 2]."""
    handles, labels = axes.get_legend_handles_labels()
    handle = handles[labels.index(label)]
    line = handle[0] if isinstance(handle, tuple) else handle
    return np.asarray(line.get_xydata())


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("kind", BUILT_IN, ids=lambda kind: kind.info.name)
@pytest.mark.parametrize(
    "settings",
    [{}, {"seeds": 2, "relaxations": ("efcn", "lcn>efcn"), "dimensions": 2, "controls": False}],
    ids=["one seed", "stages and images without controls"],
)
def test_every_figure_is_drawn_with_no_text_cut_off(made, kind, settings, narrow):
    run = FinishedRun.read(made(**settings))
    texts_inside(kind.draw([run], narrow=narrow))
    assert kind.caption([run]).endswith(".")


@pytest.mark.parametrize("kind", BUILT_IN, ids=lambda kind: kind.info.name)
def test_several_runs_stand_side_by_side_under_their_names(made, kind):
    runs = [FinishedRun.read(made("first")), FinishedRun.read(made("second", seeds=2))]
    figure = kind.draw(runs)
    texts_inside(figure)
    titles = " ".join(axes.get_title(loc="left") for axes in figure.axes)
    assert "first" in titles
    assert "second" in titles


def test_final_accuracy_is_shown_with_the_cnn_the_controls_and_the_spread_over_seeds(made):
    axes = BY_NAME["performance"].draw([FinishedRun.read(made(seeds=2))]).axes[0]
    assert labelled(axes, "efcn").tolist() == [[0, 60.5], [2, 70.5], [10, 85.5]]
    assert labelled(axes, "CNN continued").tolist() == [[0, 79.5], [2, 79.5], [10, 79.5]]
    assert set(labelled(axes, "CNN")[:, 1]) == {80.5}
    assert set(labelled(axes, "efcn from scratch")[:, 1]) == {50.5}
    handles, labels = axes.get_legend_handles_labels()
    [bars] = handles[labels.index("efcn")][2]
    assert bars.get_segments()[0][:, 1] == pytest.approx([60.5 - 0.5**0.5, 60.5 + 0.5**0.5])


def test_sharpness_has_a_panel_for_each_probe_that_ran(made):
    both = BY_NAME["performance"].draw([FinishedRun.read(made("both"))])
    assert len(both.axes) == 3
    assert labelled(both.axes[2], "after training").tolist() == [[0, 20], [2, 22], [10, 30]]
    run = FinishedRun.read(made("one", probes=["hessian"]))
    assert len(BY_NAME["performance"].draw([run]).axes) == 2
    assert "the probe gradient did not run" in BY_NAME["performance"].caption([run])


def test_a_probe_of_anyones_has_a_panel_where_its_record_gives_an_axis(made, monkeypatch):
    def measure(segments):
        for segment in segments:
            segment["probes"]["norms"] = {"start": {"norm": 1.0, "other": 0.0}, "end": {"norm": 2.0, "other": 0.0}}

    info = ProbeInfo(name="norms", summary="Norms.", target="nowhere:Norms", axes={"norm": "norm of everything $|w|$"})
    plugin = PluginRecord(
        name="norms", module="nowhere", distribution="anarch-norms", version="1", status=Status.LOADED, components=(info,)
    )
    monkeypatch.setattr("anarch_core.report.figures.performance.get_registry", lambda: Registry((*get_registry().plugins, plugin)))
    run = FinishedRun.read(made(probes=["hessian"], change=measure))
    _, _, norm = BY_NAME["performance"].draw([run]).axes
    assert norm.get_ylabel() == "norm of everything $|w|$"
    assert labelled(norm, "after training").tolist() == [[0, 2], [2, 2], [10, 2]]
    caption = BY_NAME["performance"].caption([run])
    assert "Then the largest eigenvalue and the norm of everything, at the switch and after training." in caption
    assert "There is no panel for the gradient norm: the probe gradient did not run." in caption


def test_of_two_figures_with_one_name_the_own_one_is_drawn():
    own = BY_NAME["performance"].info
    other = FigureInfo(name="performance", summary="Another.", title="Another", target="nowhere:Another", order=0)
    plugin = PluginRecord(name="x", module="nowhere", distribution="anarch-x", version="1", status=Status.LOADED, components=(other,))
    assert [listed.info for listed in figures(Registry((plugin,))) if listed.info.name == "performance"] == [own]


def test_figures_come_in_the_order_of_the_paper():
    names = ["training-curves", "performance", "deviation", "filters", "parts", "weight-matrix", "accuracy-histories", "paths"]
    assert [kind.info.name for kind in BUILT_IN] == names


def test_the_door_of_figures_is_light_and_complete():
    code = "import sys, anarch_core.report; assert not {'torch', 'matplotlib', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert all(hasattr(anarch_core.report, name) for name in anarch_core.report.__all__)


def test_deviation_is_drawn_against_switch_time_initial_loss_and_final_accuracy(made):
    time, loss, accuracy = BY_NAME["deviation"].draw([FinishedRun.read(made())]).axes
    assert labelled(time, "efcn: $\\delta$") == pytest.approx(np.array([[0, 0.4], [2, 0.4 / 3], [10, 0.4 / 11]]))
    assert labelled(loss, "efcn from scratch") == pytest.approx(np.array([[2.3, 0.9]]))
    assert labelled(accuracy, "efcn from scratch") == pytest.approx(np.array([[50.0, 0.9]]))


def test_crosses_stand_above_their_switch_time(made):
    axes = BY_NAME["accuracy-histories"].draw([FinishedRun.read(made())]).axes[0]
    crosses = {tuple(line.get_xydata()[0]) for line in axes.lines if line.get_marker() == "x"}
    assert crosses == {(0.0, 10.0), (0.0, 60.0), (2.0, 14.0), (2.0, 70.0), (10.0, 30.0), (10.0, 85.0)}


@pytest.mark.parametrize(
    ("name", "probe"),
    [("deviation", "delta"), ("filters", "filters"), ("parts", "ablation"), ("weight-matrix", "weights"), ("paths", "interpolation")],
)
def test_a_figure_without_its_probe_says_which_one_to_run(made, name, probe):
    run = FinishedRun.read(made(probes=[other for other in ("delta", "filters", "ablation", "weights", "interpolation") if other != probe]))
    with pytest.raises(NothingToDrawError, match=f"the probe {probe} was not run; run again with --probe {probe}"):
        BY_NAME[name].draw([run])


def test_a_run_without_branches_has_no_figure(made):
    run = FinishedRun.read(made(relaxations=()))
    for kind in BUILT_IN:
        with pytest.raises(NothingToDrawError, match="no branch is finished"):
            kind.draw([run])


def test_diverged_segments_are_left_out(made):
    def diverge(segments):
        for segment in segments:
            if segment["kind"] == "branch" and segment["switch_epoch"] == 2.0:
                segment["diverged_epoch"] = 3
                segment["final"] |= {"train_loss": None, "test_loss": None}

    axes = BY_NAME["performance"].draw([FinishedRun.read(made(change=diverge))]).axes[0]
    assert labelled(axes, "efcn").tolist() == [[0, 60], [10, 85]]


def test_files_are_the_same_bytes_every_time(made, tmp_path):
    run = FinishedRun.read(made())
    written = []
    for attempt in ("a", "b"):
        style.write(BY_NAME["performance"].draw([run]), tmp_path / attempt)
        written.append([(tmp_path / f"{attempt}.{suffix}").read_bytes() for suffix in ("png", "svg")])
    assert written[0] == written[1]
    assert written[0][0].startswith(b"\x89PNG")


def test_the_callers_settings_of_matplotlib_change_nothing_and_stay_as_they_are(made):
    import matplotlib as mpl

    run = FinishedRun.read(made())
    plain = style.svg(BY_NAME["performance"].draw([run]))
    with mpl.rc_context({"font.size": 30, "axes.grid": False}):
        assert style.svg(BY_NAME["performance"].draw([run])) == plain
        assert mpl.rcParams["font.size"] == 30


def test_spread_leaves_out_what_was_not_measured():
    assert Spread.of([1.0, None, 3.0]) == Spread(2.0, 2**0.5, 2)
    assert Spread.of([4.0]) == Spread(4.0, 0.0, 1)
    assert Spread.of([None]) is None


def test_history_is_averaged_over_seeds_where_it_was_measured(made):
    run = FinishedRun.read(made(seeds=2))
    assert [(epoch, spread.mean) for epoch, spread in history(run.trunk, "test_accuracy")] == [(0, 10.0), (20.0, 80.5)]
    assert [epoch for epoch, _ in history(run.trunk, "train_loss")] == [0, 1, 20.0]


def test_some_keeps_both_ends():
    assert some([0, 1, 2], 3) == [0, 1, 2]
    assert some(list(range(10)), 4) == [0, 3, 6, 9]


@pytest.mark.parametrize(
    ("barriers", "told"),
    [
        ((0.0, 0.0, 0.0), "the straight path has no barrier at any switch time."),
        ((None, 0.25, 0.0), "the straight path has a barrier of up to 0.25 nats; the loss on the straight path is not finite for t_w = 0,"),
        ((0.0, None, 0.0), "the straight path has no barrier at any other switch time; the loss on the straight path is not finite"),
        ((None, None, None), "efcn: the loss on the straight path is not finite for t_w = 0, 2, 10, where no barrier can be told."),
    ],
)
def test_a_barrier_that_was_not_measured_is_not_called_none(made, barriers, told):
    def change(segments) -> None:
        for segment in segments:
            if segment["kind"] == "branch":
                height = dict(zip((0.0, 2.0, 10.0), barriers, strict=True))[segment["switch_epoch"]]
                segment["probes"]["interpolation"] = {"end": {"linear_barrier": height}}

    assert told in BY_NAME["paths"].caption([FinishedRun.read(made(change=change))]).replace("\xa0", " ")


def test_points_that_are_not_finite_are_left_out_of_a_path(made):
    run = FinishedRun.read(made(seeds=2))
    for file in run.results.path.glob("segments/*/probes/interpolation*"):
        tensors, _ = load_state(file)
        tensors["linear"][2, 1], tensors["linear"][3, 1] = np.nan, np.inf
        save_state(file, tensors)
    figure = BY_NAME["paths"].draw([FinishedRun.read(run.results.path)])
    texts_inside(figure)
    assert len(labelled(figure.axes[0], "linear")) == 3


def test_a_filter_that_reads_padding_alone_or_is_not_finite_is_drawn(made):
    path = made()
    for file in path.glob("segments/*/probes/filters*"):
        tensors, _ = load_state(file)
        tensors["inside"].zero_()
        tensors["filters"][0] = np.nan
        save_state(file, tensors)
    run = FinishedRun.read(path)
    texts_inside(BY_NAME["filters"].draw([run]))
    assert "channel 1" in BY_NAME["filters"].caption([run])
