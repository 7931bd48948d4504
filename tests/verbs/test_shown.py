"""What a prompt and a notebook show of a run, before, during and after it."""

from __future__ import annotations

import attrs
import pytest
import torch
from torch import nn

import anarch_core
from anarch_core.data import load_data
from anarch_core.errors import ConfigError, ProbeError, UnknownComponentError
from anarch_core.experiment.rows import segment_rows
from anarch_core.experiment.segment_result import SegmentResult
from anarch_core.paths import interpolate
from anarch_core.report import NothingToDrawError


@pytest.fixture(scope="module")
def settings(signals):
    return {
        "data": f"tensors:{signals}", "model": "cnn1d", "relax": "lcn", "probe": "delta", "batch_size": 10, "epochs": 2, "branch_epochs": 1,
        "switch": "at:1", "device": "cpu", "jobs": 1, "threads": 1, "seeds": "0,1", "options": {"cnn1d": {"channels": 3}},
    }  # fmt: skip


@pytest.fixture(scope="module")
def results(settings, tmp_path_factory):
    return anarch_core.run(**settings, out=tmp_path_factory.mktemp("shown") / "run", progress="silent")


@pytest.fixture(scope="module")
def branch(results) -> SegmentResult:
    return next(segment for segment in results.segments if segment.kind == "branch")


@pytest.fixture
def relaxed():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(1, 2, 3), nn.Conv1d(2, 2, 3))
    return anarch_core.relax(model, "lcn", example_input=torch.randn(2, 1, 8))


def lines(shown: object) -> list[list[str]]:
    return [line.split() for line in repr(shown).splitlines()]


def test_results_are_their_summary(results):
    text = lines(results)
    assert text[0][:2] + text[0][-1:] == ["Results", "of", "finished"]
    assert ["segments", "8"] in text
    assert any(line[:1] == ["trunk"] for line in text)
    assert any(line[:2] == ["lcn", "1"] for line in text)
    assert results._repr_html_().count("<tr>") == 1 + 3  # a heading; trunk, scratch and branch


def test_a_segment_is_its_scores_and_measurements(branch):
    text = lines(branch)
    assert ["epochs", "1,", "from", "epoch", "1", "on"] in text
    assert ["test_loss", f"{branch.start.test_loss:.4g}", f"{branch.final.test_loss:.4g}"] in text
    (unshared,) = [line for line in text if line[:1] == ["delta.unshared"]]
    assert float(unshared[1]) == 0
    assert float(unshared[2]) > 0
    assert "delta.unshared" in branch._repr_html_()


def test_a_segment_says_how_it_ended_and_what_its_average_is(branch):
    stopped = attrs.evolve(branch, ended="stopped early: nothing better in 3 epochs", average=branch.final)
    text = lines(stopped)
    assert ["ended", *stopped.ended.split()] in text
    assert ["test_loss", f"{branch.start.test_loss:.4g}", *[f"{branch.final.test_loss:.4g}"] * 2] in text
    assert ["ended", "diverged", "in", "epoch", "0.5"] in lines(attrs.evolve(branch, ended="diverged", diverged_epoch=0.5))
    (row,) = segment_rows([stopped])
    assert (row["ended"], row["average.test_loss"]) == (stopped.ended, branch.final.test_loss)


def test_a_frame_of_segments(results, branch):
    pytest.importorskip("pandas")
    frame = results.to_dataframe().set_index("id")
    assert list(frame.index) == [segment.id for segment in results.segments]
    assert list(frame.columns[:4]) == ["kind", "seed", "relaxation", "switch_epoch"]
    row = frame.loc[branch.id]
    assert row["final.test_loss"] == branch.final.test_loss
    assert row["delta.end.unshared"] == branch.scalars("delta", "end")["unshared"]
    assert row["exactness.exact"]
    assert frame.groupby("kind").size().to_dict() == {"trunk": 2, "scratch": 2, "continued": 2, "branch": 2}


def test_a_frame_of_epochs(results, branch):
    pytest.importorskip("pandas")
    frame = results.history_dataframe()
    assert len(frame) == sum(len(segment.history) for segment in results.segments)
    own = frame[frame["id"] == branch.id]
    assert own["epoch"].tolist() == [0, 1]
    assert own["switch_epoch"].tolist() == [1, 1]
    assert own["train_loss"].iloc[-1] == branch.history[-1]["train_loss"]


def test_a_relaxation_is_its_report(relaxed):
    assert repr(relaxed) == repr(relaxed.report)
    text = repr(relaxed).splitlines()
    assert text[0].startswith("lcn: exact to rounding (float32); end to end ")
    assert text[2].split() == ["layer", "type", "parameters", "relaxed", "size", "FLOPs", "a", "sample", "error"]
    assert text[3].split()[:4] == ["0", "Conv1d", "8", "48"]
    assert relaxed._repr_html_().count("<tr>") == 3


def test_what_was_not_compared_is_not_called_exact(relaxed):
    unchecked = anarch_core.relax(relaxed.parent, "lcn", example_input=torch.randn(2, 1, 8), check=False)
    assert repr(unchecked).splitlines()[0] == "lcn: not compared with its parent"
    assert "error" not in repr(unchecked)


def test_drift_is_shares_of_the_weight(relaxed):
    with torch.no_grad():
        relaxed.model[0].weight += torch.randn_like(relaxed.model[0].weight)
    found = anarch_core.drift(relaxed.model)
    text = lines(found)
    parts = {line[0]: [float(share) for share in line[1:]] for line in text[3:6]}
    assert list(parts) == ["0", "1", "all"]
    assert sum(share**2 for share in parts["all"]) == pytest.approx(1, abs=1e-3)
    assert parts["1"] == [1, 0, 0]
    assert parts["0"][1] > 0.1


def test_frames_of_layers(relaxed):
    pytest.importorskip("pandas")
    report, drift = relaxed.report.to_dataframe(), anarch_core.drift(relaxed.model).to_dataframe()
    assert report["path"].tolist() == drift["path"].tolist() == ["0", "1"]
    assert report["parameters"].tolist() == [layer.cost.parameters for layer in relaxed.report.layers]
    assert drift["unshared"].tolist() == [0, 0]


def test_a_switch_says_what_became_of_the_optimizer():
    model, x = nn.Sequential(nn.Conv1d(1, 2, 3)), torch.randn(2, 1, 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(x).sum().backward()
    optimizer.step()
    switched = anarch_core.switch(model, optimizer, "lcn", example_input=x, optimizer_state="carry")
    assert ["SGD", "state", "of", "parameters:", "2", "carried"] in lines(switched)
    assert repr(anarch_core.switch_back(model, optimizer)).splitlines()[0] == "projected back"


def test_a_plan_is_facts_and_networks(settings):
    plan = anarch_core.plan(**settings, timed=False)
    assert ["seeds", "0,", "1"] in lines(plan)
    assert [line[0] for line in lines(plan) if line[-2:] == ["all", "samples"]] == ["constrained", "lcn"]
    assert "<strong>Plan of a run</strong>" in plan._repr_html_()


def test_data_are_their_parts(signals):
    data = load_data(f"tensors:{signals}")
    assert ["x_train", "40×1×16", "float32", "cpu", "2.6", "kB"] in lines(data)
    assert "y_test" in data._repr_html_()


def test_settings_that_were_chosen_stand_out(settings):
    config = anarch_core.plan(**settings, timed=False).config
    html = config._repr_html_()
    assert "<strong>lcn</strong>" in html
    assert "<strong>sgd</strong>" not in html
    assert "cnn1d.channels" in html


def test_a_figure_of_the_report_is_drawn_with_its_caption(results):
    drawn = anarch_core.figure(results, "performance")
    assert repr(drawn).startswith(f"figure performance: {drawn.caption[:20]}")
    assert drawn._repr_png_().startswith(b"\x89PNG")
    assert drawn._repr_html_().startswith('<div><img src="data:image/png;base64,')
    with pytest.raises(ConfigError, match=r"no figure 'performence'; did you mean 'performance'\?; there are training-curves, "):
        anarch_core.figure(results, "performence")
    with pytest.raises(NothingToDrawError, match="the probe filters was not run"):
        anarch_core.figure(results.path, "filters")


@pytest.mark.usefixtures("one_figure")
def test_a_report_is_written_of_results_or_folders(results, tmp_path):
    report = anarch_core.write_report(results)
    assert report.path == results.path / "report.html"
    assert str(report.path) in repr(report)
    assert anarch_core.write_report([results, str(results.path)], tmp_path / "both.html").path == tmp_path / "both.html"


def test_a_network_is_measured_by_the_name_of_a_probe(relaxed):
    found = anarch_core.measure(relaxed.model, "delta", reference=relaxed.model)
    assert (found.scalars["unshared"], found.scalars["moved"]) == (0, 0)
    assert ["unshared", "0"] in lines(found)


def test_what_a_probe_needs_is_said_as_an_argument(relaxed):
    for probe, model, said in [
        ("delta", relaxed.parent, "a network with relaxed layers, and this one has none: anarch_core.relax makes one"),
        ("gradient", relaxed.model, "data to measure on: pass data=TensorData"),
    ]:
        with pytest.raises(ProbeError, match=f"the probe {probe} needs {said}"):
            anarch_core.measure(model, probe)
    with pytest.raises(ConfigError, match="expected a network"):
        anarch_core.measure("model.safetensors", "delta")
    with pytest.raises(ConfigError, match="no runs were given"):
        anarch_core.figure([])
    with pytest.raises(UnknownComponentError, match="did you mean 'delta'"):
        anarch_core.measure(relaxed.model, "dellta")


def test_runs_in_a_folder_are_a_table(results, tmp_path):
    found = anarch_core.runs(results.path.parent)
    assert [run.path for run in found] == [results.path]
    assert lines(found)[0] == ["1", "runs", "in", str(results.path.parent)]
    assert "<td" in found._repr_html_()
    assert found.results() == [results]
    with pytest.raises(ConfigError, match="there is no folder"):
        anarch_core.runs(tmp_path / "none")
    assert (len(anarch_core.runs(tmp_path)), lines(anarch_core.runs(tmp_path))) == (0, [["0", "runs", "in", str(tmp_path)]])


def test_a_frame_of_runs(results):
    pytest.importorskip("pandas")
    (row,) = anarch_core.runs(results.path.parent).to_dataframe().to_dict("records")
    assert (row["path"], row["state"], row["best.score"], row["seeds"]) == (results.path, "finished", "accuracy", (0, 1))


def test_a_path_is_its_losses_and_barriers(signals):
    data = load_data(f"tensors:{signals}")
    torch.manual_seed(0)
    ends = [nn.Sequential(nn.Conv1d(1, 2, 5), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3)) for _ in range(2)]
    profile = interpolate(*ends, data, points=3)
    text = lines(profile)
    assert text[0] == ["linear", "path"]
    assert text[2] == ["position", "train", "loss", "train", "accuracy", "test", "loss", "test", "accuracy"]
    assert [row[0] for row in text[3:6]] == ["0", "0.5", "1"]
    assert "barrier in training loss: " in profile._repr_html_()
    assert [row["test.loss"] for row in profile._rows()] == [score.loss for score in profile.test]
