"""Whole runs, small ones."""

from __future__ import annotations

import json
import os
import shutil
import signal
import textwrap
import threading
from collections import Counter
from pathlib import Path

import attrs
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

import anarch_core
from anarch_core.bounds import between
from anarch_core.config import values
from anarch_core.config.files import to_toml
from anarch_core.config.run_config import RunConfig
from anarch_core.data.order import epoch_order
from anarch_core.errors import ConfigError, OutOfMemoryError, RunError, SurgeryError
from anarch_core.experiment.results import Results
from anarch_core.experiment.segments import Segment
from anarch_core.plugin.discovery import PluginRecord, Status
from anarch_core.plugin.records import ProbeInfo
from anarch_core.plugin.registry import Registry, get_registry
from anarch_core.running.progress import Silent
from anarch_core.running.runner import resume, run
from anarch_core.segment.stopping import InterruptedRunError

BATCH, STEPS_PER_EPOCH = 10, 4


def finals(path: Path) -> dict[str, bytes]:
    return {file.parent.name: file.read_bytes() for file in path.glob("segments/*/final.safetensors")}


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory) -> Results:
    out = tmp_path_factory.mktemp("run") / "plain"
    return run(small(probe="delta", seeds="0,1"), out=out, progress="silent")


def segment(results: Results, kind: str, switch: float | None = None, seed: int = 0):
    [found] = [s for s in results.segments if (s.kind, s.switch_epoch, s.seed) == (kind, switch, seed)]
    return found


def weights(results: Results, found) -> dict[str, torch.Tensor]:
    return load_file(results.path / "segments" / found.id / "final.safetensors")


class TestAFinishedRun:
    def test_has_every_segment(self, finished):
        assert finished.status == "finished"
        assert Counter(s.kind for s in finished.segments) == {"trunk": 2, "branch": 4, "continued": 4, "scratch": 2}
        assert not finished.failed
        assert not finished.skipped

    def test_is_read_back_as_it_was(self, finished):
        again = Results.read(finished.path)
        assert [segment.to_json() for segment in again.segments] == json.loads(json.dumps([s.to_json() for s in finished.segments]))
        assert (again.status, again.model, again.headlines) == (finished.status, finished.model, finished.headlines)

    def test_is_not_run_again(self, finished, signals):
        before = {file: file.stat().st_mtime_ns for file in finished.path.glob("segments/*/*")}
        again = resume(finished.path, progress="silent")
        assert {file: file.stat().st_mtime_ns for file in finished.path.glob("segments/*/*")} == before
        assert list(again.segments) == list(Results.read(finished.path).segments)

    def test_leaves_no_resume_state(self, finished):
        assert not list(finished.path.glob("segments/*/resume.safetensors"))

    def test_history_has_a_row_per_epoch_and_begins_with_the_start(self, finished):
        history = segment(finished, "trunk").history
        assert [row["epoch"] for row in history] == [0, 1, 2, 3]
        assert history[0]["test_accuracy"] == segment(finished, "trunk").start.test_accuracy
        assert history[-1]["test_loss"] == segment(finished, "trunk").final.test_loss

    def test_branch_starts_as_exactly_its_parent(self, finished):
        branch, continued = segment(finished, "branch", 2.0), segment(finished, "continued", 2.0)
        assert branch.start.train_loss == pytest.approx(continued.start.train_loss, rel=1e-5)
        assert branch.start.test_accuracy == continued.start.test_accuracy
        assert branch.exactness.exact
        assert set(branch.exactness.layers) == {"features.0", "features.2", "features.4"}

    def test_probes_run_at_start_and_end_where_they_apply(self, finished):
        branch = segment(finished, "branch", 0.0)
        assert branch.probes["delta"]["start"]["off_local"] == pytest.approx(0, abs=1e-6)
        assert branch.probes["delta"]["end"]["off_local"] > 0
        assert "skipped" in segment(finished, "trunk").probe_notes["delta"]["end"]

    def test_scratch_starts_outside_the_constrained_family(self, finished):
        assert segment(finished, "scratch").probes["delta"]["start"]["off_local"] > 0.5

    def test_seeds_differ(self, finished):
        assert segment(finished, "trunk", seed=0).final != segment(finished, "trunk", seed=1).final

    def test_final_checkpoint_is_plain_safetensors(self, finished):
        assert sum(w.numel() for w in weights(finished, segment(finished, "trunk")).values()) == segment(finished, "trunk").parameters

    def test_branch_of_a_finished_checkpoint_can_be_loaded(self, finished):
        found = segment(finished, "branch", 2.0)
        model = anarch_core.load(finished.path / "segments" / found.id / "final.safetensors")
        assert [type(module).__name__ for module in model.features[::2]] != ["Conv1d"] * 3


def test_the_whole_protocol_equals_a_handwritten_one(finished, signals):
    """Trunk, snapshot at 2 epochs, exact embedding, branch: nothing of the runner is used, only the embedding.

    Up to rounding, since the runner updates relaxed weights inside the backward pass.
    """
    data = load_file(signals)
    from anarch_core.models import build_model

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = build_model("cnn1d", input_shape=(1, 16), classes=3, options={"channels": 3}, seed=0)

    def train(model: torch.nn.Module, epochs: range, lr: float) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=lr, fused=True)
        for epoch in epochs:
            for rows in epoch_order(40, 0, epoch).split(BATCH):
                optimizer.zero_grad()
                cross_entropy(model(data["x"][rows]), data["y"][rows]).backward()
                optimizer.step()

    train(model, range(2), 0.1)
    relaxed = anarch_core.relax(model, "efcn", example_input=data["x"][:2]).model
    train(relaxed, range(2, 4), 0.01)
    torch.set_num_threads(threads)
    expected = relaxed.state_dict()
    actual = weights(finished, segment(finished, "branch", 2.0))
    assert actual.keys() == expected.keys()
    torch.testing.assert_close(actual, dict(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("augment", [(), "crop:2,flip"], ids=["plain", "augmented"])
def test_continued_with_the_trunk_s_settings_retraces_the_trunk(small, tmp_path, augment):
    config = small(
        relax=(), control="continued", switch="at:0,1,7it", epochs=3, branch_epochs=2, branch_lr=0.1, augment=augment,
        optimizer_state="carry", options={"sgd": {"momentum": 0.9}},
    )  # fmt: skip
    results = run(config, out=tmp_path / "run", progress="silent")
    trunk, continued = weights(results, segment(results, "trunk")), weights(results, segment(results, "continued", 1.0))
    assert all(torch.equal(trunk[name], continued[name]) for name in trunk)
    assert set(segment(results, "continued", 1.0).optimizer_state.values()) == {"carried"}


@pytest.mark.parametrize("validation", [0, 0.2])
def test_inputs_that_are_read_a_batch_at_a_time_give_the_same_bytes(small, tmp_path, validation):
    there, here = (
        run(small(probe="gradient,weights", validation=validation, augment="flip", data_on=place), out=tmp_path / place, progress="silent")
        for place in ("device", "host")
    )
    assert finals(tmp_path / "device") == finals(tmp_path / "host")
    for one, other in zip(there.segments, here.segments, strict=True):
        assert attrs.evolve(one, seconds=0) == attrs.evolve(other, seconds=0)
    assert (
        run(small(probe="gradient,weights", validation=validation, augment="flip"), out=tmp_path / "host", progress="silent").status
        == "finished"
    )


def test_caller_s_random_state_and_threads_are_left_alone(small, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    run(small(threads=threads + 1), out=tmp_path / "run", progress="silent")
    assert torch.equal(torch.rand(1), expected)
    assert torch.get_num_threads() == threads


def test_plateaus_found_by_the_trunk_grow_the_tree(small, tmp_path):
    config = small(switch="plateau:2", epochs=12, control="none", lr=1e-30)
    results = run(config, out=tmp_path / "run", progress="silent")
    trunk = segment(results, "trunk")
    assert len(trunk.switches) >= 1
    assert [s.switch_iteration for s in results.segments if s.kind == "branch"] == trunk.switches
    assert list(resume(tmp_path / "run", progress="silent").segments) == list(results.segments)


def test_staged_path_ends_where_the_last_stage_says(small, tmp_path):
    config = small(relax=(), path=["lcn@1,efcn@7it,conv@3"], control="scratch", probe="delta")
    results = run(config, out=tmp_path / "run", progress="silent")
    stages = [s for s in results.segments if s.kind == "branch"]
    assert [(s.relaxation, s.epochs) for s in stages] == [("lcn", 0.75), ("lcn>efcn", 1.25), ("lcn>efcn>conv", 2)]
    assert set(weights(results, stages[-1])) == set(weights(results, segment(results, "trunk")))
    assert [s.relaxation for s in results.segments if s.kind == "scratch"] == []


def test_the_scratch_control_of_a_path_has_the_weights_of_the_network_at_its_end(small, tmp_path):
    results = run(small(relax=(), path="grow:7@1,lcn@2", control="scratch"), out=tmp_path / "run", progress="silent")
    ends = [segment(results, "scratch"), next(s for s in results.segments if s.relaxation == "grow:7>lcn" and s.kind == "branch")]
    control, branch = ({name: tensor.shape for name, tensor in weights(results, end).items()} for end in ends)
    assert control == branch
    assert ends[0].relaxation == "grow:7>lcn"


@pytest.mark.parametrize("precision", ["float64", "bfloat16"])
def test_other_precisions(small, tmp_path, precision):
    results = run(small(precision=precision, switch="at:2"), out=tmp_path / "run", progress="silent")
    kept = {tensor.dtype for tensor in weights(results, segment(results, "branch", 2.0)).values()}
    assert kept == {torch.float64 if precision == "float64" else torch.float32}
    assert not results.failed


def test_a_segment_that_diverges_is_recorded_and_its_later_branches_skipped(small, tmp_path):
    config = small(lr=1e6, switch="at:0,3", control="none")
    results = run(config, out=tmp_path / "run", progress="silent")
    assert results.status == "finished"
    trunk = segment(results, "trunk")
    assert trunk.diverged_epoch == 1
    assert trunk.final.train_loss is None
    assert segment(results, "branch", 0.0).diverged_epoch is None
    assert [record.error for record in results.skipped.values()] == ["trunk, seed 0 diverged in epoch 1"]
    assert "diverged" in str(Results.read(tmp_path / "run").skipped)


@pytest.mark.parametrize(
    ("lr", "why"),
    [
        (1e300, "trunk, seed 0 diverged in epoch 1"),
        (1e30, r"are not finite after efcn, so how far they are from the parent's is not known; look at the numbers"),
    ],
    ids=["weights", "outputs"],
)
def test_a_segment_that_diverges_in_its_last_step_has_diverged(small, tmp_path, monkeypatch, lr, why):
    """The loss of a step is taken before it, so the only step of the trunk looks fine."""
    monkeypatch.setattr(values, "LEARNING_RATE", between(0, 1e300))  # so that one step suffices on these data
    config = small(lr=lr, epochs=1, batch_size=40, branch_epochs=1, switch="at:1", control="none")
    results = run(config, out=tmp_path / "run", progress="silent")
    trunk = segment(results, "trunk")
    assert trunk.history[1]["train_loss"] is not None
    assert trunk.final.train_loss is None
    assert trunk.diverged_epoch == 1
    [stopped] = [*results.skipped.values(), *results.failed.values()]
    assert why in stopped.error


PROBES = """
    from anarch_core.probe.base import AbstractProbe, Measurement

    class Grumpy(AbstractProbe):
        def measure(self, context):
            raise ZeroDivisionError("no luck")

    class Rude(AbstractProbe):
        headline = ("answer",)
        def measure(self, context):
            import torch
            torch.manual_seed(0)
            torch.rand(3)
            context.model.train()
            for parameter in context.model.parameters():
                parameter.grad = torch.ones_like(parameter)
            details = {"n": 1, "worst": float("nan")}
            return Measurement(scalars={"answer": 42, "nothing": float("inf")}, details=details, tensors={"t": torch.zeros(2)})
"""


@pytest.fixture
def with_probes(tmp_path, monkeypatch) -> Registry:
    (tmp_path / "odd_probes.py").write_text(textwrap.dedent(PROBES))
    monkeypatch.syspath_prepend(tmp_path)
    infos = tuple(ProbeInfo(name=name.lower(), summary="Odd.", target=f"odd_probes:{name}") for name in ("Grumpy", "Rude"))
    plugin = PluginRecord(name="odd", module="odd", distribution="odd", version="1", status=Status.LOADED, error="", components=infos)
    return Registry((*get_registry().plugins, plugin))


def test_probes_that_fail_or_misbehave_change_nothing(small, tmp_path, with_probes):
    settings = {"switch": "at:1", "control": "none"}
    plain = run(small(**settings), out=tmp_path / "plain", progress="silent")
    config = RunConfig(**{name: getattr(small(**settings), name) for name in ("data", "model", "batch_size", "relax", "epochs",
        "branch_epochs", "switch", "control", "jobs", "threads", "device", "options")}, probe=("grumpy", "rude"))  # fmt: skip
    probed = run(config, out=tmp_path / "probed", registry=with_probes, progress="silent")
    assert finals(tmp_path / "plain") == finals(tmp_path / "probed")
    branch = segment(probed, "branch", 1.0)
    assert branch.probe_notes["grumpy"]["end"] == "failed: probe 'grumpy' of plugin 'odd' (odd 1): ZeroDivisionError: no luck"
    assert branch.probes["rude"]["start"] == {"answer": 42.0, "nothing": None}
    assert branch.probe_details["rude"]["end"] == {"n": 1, "worst": None}
    assert list(load_file(tmp_path / "probed" / "segments" / branch.id / "probes" / "rude-end.safetensors")) == ["t"]
    assert plain.status == probed.status == "finished"


class Interrupting(Silent):
    """Sends a signal as soon as the trunk is under way."""

    def trained(self, segment: Segment, iteration: int, row: object) -> None:
        if segment.kind == "trunk" and iteration == 2 * STEPS_PER_EPOCH:
            os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_saves_and_resume_gives_the_same_bytes(small, tmp_path, finished):
    config = small(probe="delta", seeds="0,1")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(InterruptedRunError, match="anarch resume"):
        run(config, out=tmp_path / "run", progress=Interrupting())
    assert signal.getsignal(signal.SIGTERM) == before
    assert Results.read(tmp_path / "run").status == "stopped"
    assert list(tmp_path.glob("run/segments/*/resume.safetensors"))
    resume(tmp_path / "run", progress="silent")
    assert finals(tmp_path / "run") == finals(finished.path)


def test_runs_outside_the_main_thread(small, tmp_path):
    found: list[Results] = []
    config = small(switch="at:0", control="none")
    thread = threading.Thread(target=lambda: found.append(run(config, out=tmp_path / "run", progress="silent")))
    thread.start()
    thread.join()
    assert found[0].status == "finished"


class TestRefusals:
    def test_a_directory_of_another_experiment(self, small, finished):
        with pytest.raises(RunError, match=r"holds another experiment, which differs in lr \(0\.1 there, 0\.2 here\);"):
            run(small(probe="delta", seeds="0,1", lr=0.2), out=finished.path, progress="silent")

    def test_a_directory_of_something_else(self, small, tmp_path):
        (tmp_path / "thesis.tex").write_text("")
        with pytest.raises(RunError, match="neither empty nor a run directory"):
            run(small(), out=tmp_path, progress="silent")

    @pytest.mark.parametrize("inside", [".config.toml.0123abcd.tmp", ".lock", "segments/0123456789ab/.lock", "empty/"])
    def test_not_by_what_was_left_by_a_process_that_was_killed(self, small, tmp_path, inside):
        path = tmp_path / "run" / inside
        path.parent.mkdir(parents=True)
        path.mkdir() if inside.endswith("/") else path.write_text("half a li")
        run(small(relax=(), control="none"), out=tmp_path / "run", progress="silent")
        assert not list((tmp_path / "run").glob(".*.tmp"))

    def test_a_refused_run_leaves_nothing(self, small, tmp_path):
        with pytest.raises(SurgeryError):
            run(small(layers="featurs.*"), out=tmp_path / "new" / "run", progress="silent")
        assert not list(tmp_path.iterdir())
        (tmp_path / "thesis.tex").write_text("")
        with pytest.raises(RunError):
            run(small(), out=tmp_path, progress="silent")
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]

    def test_a_configuration_that_reads_back_as_another_before_anything_is_trained(self, small, tmp_path, monkeypatch):
        written = to_toml
        monkeypatch.setattr("anarch_core.running.preparation.to_toml", lambda config: written(attrs.evolve(config, lr=0.2)))
        with pytest.raises(ConfigError, match=r"lr = 0\.1 would be read back from the run directory as 0\.2"):
            run(small(), out=tmp_path / "run", progress="silent")
        monkeypatch.setattr("anarch_core.running.preparation.to_toml", lambda config: written(config) + "[color]\n")
        with pytest.raises(ConfigError, match=r"would not be read back from the run directory: config\.toml: unknown table \[color\]"):
            run(small(), out=tmp_path / "run", progress="silent")
        assert not list(tmp_path.iterdir())

    def test_a_directory_without_a_run(self, tmp_path):
        with pytest.raises(RunError, match="holds no run"):
            resume(tmp_path, progress="silent")

    def test_other_data_under_the_same_name(self, signals, small, tmp_path):
        path = shutil.copy(signals, tmp_path)
        config = small(data=f"tensors:{path}", relax=(), control="none")
        run(config, out=tmp_path / "run", progress="silent")
        tensors = load_file(path)
        tensors["x"] += 1
        from safetensors.torch import save_file

        save_file(tensors, path)
        with pytest.raises(RunError, match="is not the one"):
            resume(tmp_path / "run", progress="silent")

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_a_device_that_is_not_there(self, small, tmp_path):
        with pytest.raises(ConfigError, match="'cuda' is not there"):
            run(small(device="cuda"), out=tmp_path / "run", progress="silent")

    def test_layers_that_do_not_exist_before_anything_is_trained(self, small, tmp_path):
        with pytest.raises(SurgeryError, match=r"'featurs\.\*' matches none"):
            run(small(layers="featurs.*"), out=tmp_path / "run", progress="silent")
        assert not (tmp_path / "run" / "segments").exists()

    def test_too_little_memory_before_anything_is_trained(self, small, tmp_path, monkeypatch):
        monkeypatch.setattr("anarch_core.planning.sharing.available_bytes", lambda device: 1000)
        with pytest.raises(OutOfMemoryError, match=r"needs .* but cpu has 1\.0 kB free"):
            run(small(), out=tmp_path / "run", progress="silent")
        assert not (tmp_path / "run" / "segments").exists()

    def test_a_network_that_cannot_be_trained(self, small, tmp_path):
        with pytest.raises(ConfigError):
            run(small(model="vanilla-cnn", options={}), out=tmp_path / "run", progress="silent")
