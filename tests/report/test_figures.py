"""Every figure, from results whose numbers are known."""

from __future__ import annotations

import copy
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

PROBES = (
    "delta",
    "filters",
    "ablation",
    "weights",
    "interpolation",
    "equivariance",
    "soft-projection",
    "plane",
    "cka",
    "sharpness",
    "alignment",
)
BUILT_IN = [kind for kind in figures() if kind.info in OWN or kind.registry.plugin_of(kind.info).builtin]
NEEDS: dict[str, dict[str, int]] = {"stability": {"noises": 2}}
"""By figure, what a run must have besides a seed, its branches and its controls."""
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
    run = FinishedRun.read(made(**settings | NEEDS.get(kind.info.name, {})))
    texts_inside(kind.draw([run], narrow=narrow))
    assert kind.caption([run]).endswith(".")


@pytest.mark.parametrize("kind", BUILT_IN, ids=lambda kind: kind.info.name)
def test_several_runs_stand_side_by_side_under_their_names(made, kind):
    needs = NEEDS.get(kind.info.name, {})
    runs = [FinishedRun.read(made("first", **needs)), FinishedRun.read(made("second", **{"seeds": 2} | needs))]
    figure = kind.draw(runs)
    texts_inside(figure)
    titles = " ".join(axes.get_title(loc="left") for axes in figure.axes)
    assert "first" in titles
    assert "second" in titles


def test_final_accuracy_is_shown_with_the_cnn_the_controls_and_the_interval_over_seeds(made):
    axes = BY_NAME["performance"].draw([FinishedRun.read(made(seeds=3))]).axes[0]
    assert labelled(axes, "efcn after training").tolist() == [[0, 61], [2, 71], [10, 86]]
    assert labelled(axes, "CNN continued").tolist() == [[0, 80], [2, 80], [10, 80]]
    assert set(labelled(axes, "CNN")[:, 1]) == {81}
    assert set(labelled(axes, "efcn from scratch")[:, 1]) == {51}
    handles, labels = axes.get_legend_handles_labels()
    [bars] = handles[labels.index("efcn after training")][2]
    margin = 4.302653 / 3**0.5  # Student's t of two degrees of freedom, for a standard deviation of 1
    assert bars.get_segments()[0][:, 1] == pytest.approx([61 - margin, 61 + margin])


@pytest.mark.parametrize(("seeds", "said"), [(1, "One seed"), (2, "Two seeds"), (3, "95 % t‑intervals over 3 seeds")])
def test_fewer_than_three_seeds_have_no_interval_and_the_caption_says_so(made, seeds, said):
    run = FinishedRun.read(made(seeds=seeds))
    axes = BY_NAME["performance"].draw([run]).axes[0]
    handles, labels = axes.get_legend_handles_labels()
    assert bool(handles[labels.index("efcn after training")][2]) == (seeds == 3)
    assert said in BY_NAME["performance"].caption([run]).replace("\xa0", " ")


def test_sharpness_has_a_panel_for_each_probe_that_ran(made):
    both = BY_NAME["performance"].draw([FinishedRun.read(made("both"))])
    assert len(both.axes) == 3
    assert labelled(both.axes[2], "efcn after training").tolist() == [[0, 20], [2, 22], [10, 30]]
    assert set(labelled(both.axes[2], "CNN")[:, 1]) == {20}
    assert "plain norms and eigenvalues compare only within one network" in BY_NAME["performance"].caption([FinishedRun.read(made())])
    run = FinishedRun.read(made("one", probes=["hessian"]))
    assert len(BY_NAME["performance"].draw([run]).axes) == 2
    assert "There is no panel for the gradient norm: the probe gradient was not run" in BY_NAME["performance"].caption([run])


def test_what_cannot_be_compared_has_no_panel_and_the_caption_says_why(made):
    def plain_alone(segments):
        for segment in segments:
            for moment in segment["probes"]["hessian"].values():
                moment.pop("lambda_max_shared", None)

    def fail(segments):
        for segment in segments:
            segment["probes"].pop("hessian")
            segment["probe_notes"]["hessian"] = {"start": "failed: no memory", "end": "failed: no memory"}

    for change, why in ((plain_alone, "did not measure lambda_max_shared"), (fail, "failed: no memory")):
        run = FinishedRun.read(made(change=change))
        assert len(BY_NAME["performance"].draw([run]).axes) == 2
        assert f"There is no panel for the largest eigenvalue: the probe hessian {why}." in BY_NAME["performance"].caption([run])


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
    assert labelled(norm, "efcn after training").tolist() == [[0, 2], [2, 2], [10, 2]]
    caption = BY_NAME["performance"].caption([run])
    assert "Then the largest eigenvalue and the norm of everything, at the switch and after training." in caption
    assert "There is no panel for the gradient norm: the probe gradient was not run; run again with --probe gradient." in caption


def test_of_two_figures_with_one_name_the_own_one_is_drawn():
    own = BY_NAME["performance"].info
    other = FigureInfo(name="performance", summary="Another.", title="Another", target="nowhere:Another", order=0)
    plugin = PluginRecord(name="x", module="nowhere", distribution="anarch-x", version="1", status=Status.LOADED, components=(other,))
    assert [listed.info for listed in figures(Registry((plugin,))) if listed.info.name == "performance"] == [own]


def test_figures_come_in_the_order_of_the_paper():
    names = ["training-curves", "performance", "deviation", "filters", "parts", "weight-matrix", "accuracy-histories", "paths"]
    names[5:5] = ["soft-projection"]  # not in the paper, as what follows
    names += ["layer-paths", "plane", "stability", "alignment", "equivariance", "spectrum-time", "ntk", "cka", "sharpness"]
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


def test_points_of_the_deviation_carry_their_switch_times(made):
    for axes in BY_NAME["deviation"].draw([FinishedRun.read(made())]).axes[1:]:
        assert [text.get_text() for text in axes.texts] == ["0", "2", "10"]


def test_families_and_runs_are_shown_on_equal_axes(made):
    def weaker(segments):
        for segment in segments:
            if segment["relaxation"] == "lcn":
                segment["final"]["test_accuracy"] /= 20
                segment["history"][-1]["test_accuracy"] /= 20
                segment["probes"].get("ablation", {}).get("end", {})["accuracy_full"] = 1.0

    run = FinishedRun.read(made("two", relaxations=("efcn", "lcn"), change=weaker))
    for name in ("training-curves", "accuracy-histories", "parts"):
        panels = [axes for axes in BY_NAME[name].draw([run]).axes if axes.get_ylabel() == "test accuracy (%)"]
        assert len({(panel.get_ylim(), panel.get_xlim()) for panel in panels}) == 1 < len(panels), name
    first, second = BY_NAME["performance"].draw([run, FinishedRun.read(made("one"))]).axes[::3]
    assert first.get_ylim() == second.get_ylim()


def test_no_marker_is_cut_where_panels_have_one_scale(made):
    run = FinishedRun.read(made())
    for place, file in enumerate(sorted(run.results.path.glob("segments/*/probes/soft-projection*"))):
        tensors, _ = load_state(file)
        for table in tensors.values():
            table[:, 2] = table[:, 2] / 100 + place
        save_state(file, tensors)
    panels = [axes for axes in BY_NAME["soft-projection"].draw([FinishedRun.read(run.results.path)]).axes if axes.has_data()]
    drawn = np.concatenate([np.asarray(line.get_ydata(), float) for panel in panels for line in panel.lines])
    low, high = panels[0].get_ylim()
    room = 0.04 * (drawn.max() - drawn.min())
    assert low <= drawn.min() - room
    assert high >= drawn.max() + room


def test_hollow_is_at_the_switch_and_filled_after_training(made):
    for name in ("performance", "equivariance"):
        for axes in BY_NAME[name].draw([FinishedRun.read(made())]).axes[1:]:
            handles, labels = axes.get_legend_handles_labels()
            marks = {label: handle[0] for handle, label in zip(handles, labels, strict=True) if isinstance(handle, tuple)}
            hollow = {label for label, mark in marks.items() if mark.get_markerfacecolor() == "none"}
            assert hollow == {"efcn at the switch"}


def test_figures_follow_the_scores_of_the_objective(made, judged_by_error):
    run = FinishedRun.read(made(change=judged_by_error.change, objective=judged_by_error.record, noises=2))
    for kind in BUILT_IN:
        figure = kind.draw([run])
        texts_inside(figure)
        labels = {axes.get_xlabel() for axes in figure.axes} | {axes.get_ylabel() for axes in figure.axes}
        assert not any("accuracy" in label or "%" in label for label in labels), kind.info.name
        said = f"{kind.info.title} {kind.caption([run])}".replace("95\xa0%", "").replace("95 %", "")
        assert not any(word in said for word in ("ccurac", "%", "nats")), said
    scores = BY_NAME["performance"].draw([run]).axes[0]
    assert scores.get_ylabel() == "final test root mean square error"
    assert labelled(scores, "efcn after training") == pytest.approx(np.array([[0, 0.4], [2, 0.3], [10, 0.15]]))
    assert BY_NAME["training-curves"].draw([run]).axes[0].get_ylabel() == "training squared error"
    assert "the off-local weights add most for t_w = 0, −0.0500." in BY_NAME["parts"].caption([run]).replace("\xa0", " ")


@pytest.mark.parametrize(("figure", "probe"), [("parts", "ablation"), ("soft-projection", "soft-projection")])
def test_figures_name_the_data_that_a_probe_took_its_scores_on(made, figure, probe):
    def on_training_data(segments):
        for segment in segments:
            if probe in segment["probes"]:
                segment["probe_details"][probe] = {"end": {"data": "train"}}

    run, kind = FinishedRun.read(made("on training data", change=on_training_data)), BY_NAME[figure]
    assert {axes.get_ylabel() for axes in kind.draw([run]).axes if axes.axison} == {"training accuracy (%)"}
    assert kind.caption([run]).startswith("Training accuracy of the trained")
    assert kind.caption([FinishedRun.read(made()), run]).startswith("Test or training accuracy of the trained")


def test_what_projecting_changes_is_told_with_its_sign(made):
    def better_projected(segments):
        for segment in segments:
            for found in segment["probes"].get("soft-projection", {}).values():
                found["accuracy_both"] = found["accuracy_full"] + 2

    told = BY_NAME["soft-projection"].caption([FinishedRun.read(made("better projected", change=better_projected))])
    assert "efcn: to be projected changes it by +2.0 points at worst, for t_w = 0." in told.replace("\xa0", " ")


def test_a_name_too_long_for_a_legend_loses_its_middle(made):
    name = "shared[features.0,features.2,features.4]>lcn[features.0]>efcn"
    run = FinishedRun.read(made(seeds=2, relaxations=("efcn", name), controls=False, noises=2))
    for kind in BUILT_IN:
        texts_inside(kind.draw([run, run]))
    assert "run: shared[feature…atures.0]>efcn: the final test accuracy" in BY_NAME["training-curves"].caption([run, run])


def test_runs_with_different_scores_stand_side_by_side_on_axes_of_their_own(made, judged_by_error):
    runs = [FinishedRun.read(made("one")), FinishedRun.read(made("two", change=judged_by_error.change, objective=judged_by_error.record))]
    first, second = BY_NAME["performance"].draw(runs).axes[::3]
    assert first.get_ylim()[1] > 80
    assert second.get_ylim()[1] < 1
    assert "Final test accuracy or root mean square error" in BY_NAME["performance"].caption(runs)


def test_equivariance_is_lost_after_an_early_switch(made):
    run = FinishedRun.read(made())
    error, _, distance = BY_NAME["equivariance"].draw([run]).axes
    assert labelled(error, "efcn after training") == pytest.approx(np.array([[0, 0.4], [2, 0.4 / 3], [10, 0.4 / 11]]))
    assert set(labelled(error, "CNN continued")[:, 1]) == {0}
    assert distance.get_yscale() == "log"
    caption = BY_NAME["equivariance"].caption([run]).replace("\xa0", " ")
    assert "What a shift by 1 pixel does." in caption
    assert (
        "efcn: the layers' equivariance error after training is 0.4 for t_w = 0 and 0.0364 for t_w = 10; from scratch it is 0.9." in caption
    )


def test_planes_show_the_networks_and_the_way_between_them(made):
    run = FinishedRun.read(made())
    first, at_random = BY_NAME["plane"].draw([run]).axes[:2]
    assert labelled(first, "CNN at the switch").tolist() == [[0, 0]]
    assert labelled(first, "projection").tolist() == [[2, 0]]
    assert labelled(first, "relaxed, trained").tolist() == [[2, 1]]
    assert labelled(first, "its training, projected").tolist() == [[0, 0], [1, 0.2], [2, 1]]
    assert first.get_aspect() == 1
    assert at_random.get_legend_handles_labels()[1] == ["relaxed, trained"]
    caption = BY_NAME["plane"].caption([run]).replace("\xa0", " ")
    assert "Contours are evenly spaced in the logarithm of the loss, on 1,000 training samples, from the first seed." in caption
    assert (
        "efcn: straight between the CNN at the switch and the trained network there is a barrier of up to 0.25 nats (t_w = 0)." in caption
    )
    assert "efcn: of the squared length of the steps of training, 0.5 lies in the plane; the rest is not seen." in caption


def test_crosses_stand_above_their_switch_time(made):
    axes = BY_NAME["accuracy-histories"].draw([FinishedRun.read(made())]).axes[0]
    crosses = {tuple(line.get_xydata()[0]) for line in axes.lines if line.get_marker() in ("x", "o")}
    assert crosses == {(0.0, 10.0), (0.0, 60.0), (2.0, 14.0), (2.0, 70.0), (10.0, 30.0), (10.0, 85.0)}


@pytest.mark.parametrize(
    ("name", "probe"),
    [
        ("deviation", "delta"),
        ("filters", "filters"),
        ("parts", "ablation"),
        ("weight-matrix", "weights"),
        ("paths", "interpolation"),
        ("layer-paths", "interpolation"),
        ("equivariance", "equivariance"),
        ("cka", "cka"),
        ("alignment", "alignment"),
        ("soft-projection", "soft-projection"),
        ("ntk", "ntk"),
        ("plane", "plane"),
        ("spectrum-time", "hessian"),
        ("sharpness", "sharpness"),
    ],
)
def test_a_figure_without_its_probe_says_which_one_to_run(made, name, probe):
    run = FinishedRun.read(made(probes=[other for other in PROBES if other != probe]))
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
    assert labelled(axes, "efcn after training").tolist() == [[0, 60], [10, 85]]


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


@pytest.mark.parametrize(("shift", "told"), [(0.0, False), (0.3, True), (None, True)])
def test_a_path_with_batch_norm_says_that_its_ends_have_other_statistics(made, shift, told):
    def change(segments) -> None:
        for segment in segments:
            details = segment["probe_details"].get("interpolation", {})
            details.get("end", {})["methods"] = {"linear": {"statistics_shift": shift}}

    caption = BY_NAME["paths"].caption([FinishedRun.read(made(change=change))])
    assert ("Batch-norm statistics are estimated afresh at every point" in caption) is told


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


def test_where_nothing_is_off_local_the_unshared_part_is_shown_alone(made):
    def local(segments):
        for segment in segments:
            for found in segment["probes"].get("delta", {}).values():
                found |= {"off_local": 0.0, "unshared": 0.2}

    run = FinishedRun.read(made(change=local))
    [axes] = BY_NAME["deviation"].draw([run]).axes
    assert labelled(axes, "efcn: unshared").tolist() == [[0, 0.2], [2, 0.2], [10, 0.2]]
    assert axes.get_ylabel() == "unshared part"
    assert "is 0 throughout" in BY_NAME["deviation"].caption([run])
    assert len(BY_NAME["deviation"].draw([FinishedRun.read(made())]).axes) == 3


def test_equivariance_has_panels_of_what_was_measured(made):
    def moved_alone(segments):
        for segment in segments:
            for found in segment["probes"].get("equivariance", {}).values():
                found.pop("equivariance_error", None)
                found.pop("distance", None)

    run = FinishedRun.read(made(change=moved_alone))
    [axes] = BY_NAME["equivariance"].draw([run]).axes
    assert axes.get_ylabel() == "change of the output"
    caption = BY_NAME["equivariance"].caption([run])
    assert caption.startswith("What a shift by 1 pixel does. How far the network's output moves")
    assert "Middle" not in caption
    whole = BY_NAME["equivariance"].caption([FinishedRun.read(made())])
    assert "Left: how far" in whole
    assert "Middle: how far" in whole
    assert "Right: root mean square" in whole


def test_similarities_of_layers_are_means_over_seeds_on_one_scale_of_colours(made):
    def less_alike(segments):
        for segment in segments:
            if segment["seed"] == 1 and segment["relaxation"] == "lcn":
                for found in segment["probe_details"]["cka"].values():
                    found["against"] = {"parent": {**found["against"]["parent"], "output": 0.04}}

    run = FinishedRun.read(made(seeds=2, relaxations=("efcn", "lcn"), change=less_alike))
    efcn, lcn, _ = BY_NAME["cka"].draw([run]).axes
    alike = [1 - 0.4 / (1 + switch) for switch in (0, 2, 10)]
    last = [2 * value - 1 for value in alike]
    blank = [float("nan")] * 3
    np.testing.assert_allclose(efcn.images[0].get_array().filled(np.nan), [alike, blank, last])
    np.testing.assert_allclose(lcn.images[0].get_array().filled(np.nan)[2], [(value + 0.04) / 2 for value in last])
    assert {axes.images[0].get_clim() for axes in (efcn, lcn)} == {(0.1, 1.0)}
    assert [label.get_text() for label in efcn.get_yticklabels()] == ["features.0", "head", "output"]
    assert [label.get_text() for label in efcn.get_xticklabels()] == ["0", "2", "10"]
    caption = BY_NAME["cka"].caption([run]).replace("\xa0", " ")
    assert "on 1000 test samples" in caption
    assert (
        "Means over seeds. Colours go from 0.1 to 1, in all panels. Blank: undefined, as where a layer gives the same for all samples."
        in caption
    )
    assert "lcn with the CNN at the switch: least for the output, 0.12, for t_w = 0." in caption
    [found] = BY_NAME["cka"].findings(run.series[0])
    means = "a mean CKA of 0.60 with the CNN at the switch for t_w = 0 and of 0.96 for t_w = 10"
    assert found == f"The layers' representations after training have {means}."


def test_similarities_with_twins_are_those_of_the_other_order_of_batches(made):
    def with_twins(segments):
        for segment in [segment for segment in segments if segment["kind"] == "branch"]:
            details = copy.deepcopy(segment["probe_details"]["cka"])
            for moment in ("start", "end"):
                del segment["probes"]["cka"][moment], segment["probe_details"]["cka"][moment]
            details["end"]["against"] = {
                name: {"layers": {"features.0": 0.9}, "output": 0.8} for name in ("parent", "control", "twin", "reference")
            }
            probed = {"probes": {"cka": {"end": {"cka_twin_mean": 0.9}}}, "probe_details": {"cka": {"end": details["end"]}}}
            segments.append({**segment, "id": f"{segment['id']}-noise", "noise": 1, **probed})

    run = FinishedRun.read(made(change=with_twins))
    for narrow in (False, True):
        figure = BY_NAME["cka"].draw([run], narrow=narrow)
        texts_inside(figure)
        panels = [axes for axes in figure.axes if axes.images]
        assert len(panels) == 4
        assert all(panel.images[0].get_array().tolist() == [[0.9] * 3, [0.8] * 3] for panel in panels)
    assert [panel.get_title(loc="left").splitlines()[-1] for panel in panels] == [
        "with the CNN at the switch",
        "with the CNN continued",
        "with its twin",
        "with itself at the switch",
    ]
    assert "Its twin met the batches in another order." in BY_NAME["cka"].caption([run])


def test_the_spectrum_along_the_training_is_drawn_where_there_are_moments_between(made):
    run = FinishedRun.read(made())
    above, below = (axes[:3] for axes in np.split(np.array(BY_NAME["spectrum-time"].draw([run]).axes), 2))
    assert labelled(above[1], "shared").tolist() == [[0, 22], [3, 23], [10, 22]]
    assert labelled(above[1], "CNN continued").tolist() == [[0, 22], [3, 23], [10, 22]]
    assert labelled(below[0], "shared").tolist() == [[0, 0.5], [3, 1.5], [10, 0.5]]
    assert {axes.get_yscale() for axes in above} == {"log"}
    assert len({axes.get_ylim() for axes in above}) == 1
    caption = BY_NAME["spectrum-time"].caption([run])
    assert "Largest eigenvalue of the Hessian of the training loss (nats)" in caption
    assert "Not measured: unshared and off-local directions; add --hessian-subspaces shared,unshared,off-local." in caption


def test_the_spectrum_along_the_training_says_what_it_needs(made):
    def ends(segments):
        for segment in segments:
            for probe in ("hessian", "gradient"):
                segment["probes"][probe].pop("3ep")

    with pytest.raises(NothingToDrawError, match="between its start and its end; run again with --probe hessian --probe-at 1,5"):
        BY_NAME["spectrum-time"].draw([FinishedRun.read(made(change=ends))])


def test_units_of_their_own_are_drawn_beside_no_control(made):
    def equal(segments):
        for segment in segments:
            if segment["kind"] == "branch":
                segment["probe_details"].setdefault("hessian", {}).setdefault("end", {})["incomparable"] = "weights were equal"

    run = FinishedRun.read(made(change=equal))
    assert BY_NAME["spectrum-time"].draw([run]).axes[0].get_legend_handles_labels()[1] == ["shared"]
    assert "Squares" not in BY_NAME["spectrum-time"].caption([run])


def test_networks_of_another_order_of_batches_are_no_further_seeds(made):
    plain, noisy = FinishedRun.read(made(seeds=3)), FinishedRun.read(made(seeds=3, noises=3))
    for name in ("performance", "training-curves", "deviation"):
        for alone, both in zip(BY_NAME[name].draw([plain]).axes, BY_NAME[name].draw([noisy]).axes, strict=True):
            for line, other in zip(alone.lines, both.lines, strict=True):
                np.testing.assert_array_equal(line.get_xydata(), other.get_xydata())
    assert BY_NAME["performance"].caption([plain]) == BY_NAME["performance"].caption([noisy])


def test_the_barrier_is_that_of_the_noise_alone_and_tells_from_when_on_networks_are_stable(made):
    run = FinishedRun.read(made(seeds=3, noises=2))
    barriers, gains = BY_NAME["stability"].draw([run]).axes
    assert labelled(barriers, "efcn after training") == pytest.approx(np.array([[0, 4], [2, 4 / 3], [10, 4 / 11]]))
    assert labelled(barriers, "CNN continued") == pytest.approx(np.array([[0, 4], [2, 4 / 3], [10, 4 / 11]]))
    assert labelled(gains, "efcn after training") == pytest.approx(np.array([[0, -19], [2, -9], [10, 6]]))
    said = BY_NAME["stability"].caption([run]).replace("\xa0", " ")
    assert "CNN continued: stable from t_w = 2 on. efcn: stable from t_w = 2 on." in said
    assert "efcn: relaxing gains on average at t_w = 10." in said


def test_barriers_between_seeds_are_drawn_as_trained_and_with_channels_matched(made):
    run = FinishedRun.read(made(seeds=2, relaxations=("efcn",)))
    before, after, way = BY_NAME["alignment"].draw([run]).axes
    for panel, heights in ((before, [1.0, 3.0, 11.0]), (after, [0.5, 0.7, 1.5])):
        lines = [line.get_ydata() for line in panel.get_lines()]
        assert any(len(line) == 3 and np.allclose(line, heights) for line in lines)
    assert before.get_ylim() == after.get_ylim()
    assert [panel.get_title(loc="right") for panel in (before, after, way)] == ["as trained", "channels matched", "$t_w$ = 10"]
    told = BY_NAME["alignment"].caption([run]).replace("\xa0", " ")
    assert "One pair of seeds: too few for an interval" in told
    assert "efcn: for t_w = 10 the barrier between seeds is 11 nats as trained and 1.5 nats with channels matched." in told
    assert BY_NAME["alignment"].findings(run.series[0]) == [
        "For t_w = 10 the barrier between seeds is 11 nats as trained and 1.5 nats with channels matched."
    ]
