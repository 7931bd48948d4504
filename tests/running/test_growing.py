"""A run directory is asked for more: only what is missing is made, and all is as if it had been asked for at once."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import attrs
import pytest

from anarch_core.config.run_config import RunConfig
from anarch_core.errors import AnarchError, RunError
from anarch_core.experiment.results import Results
from anarch_core.files.tables import read_table, sealed, write_json
from anarch_core.running.progress import Silent
from anarch_core.running.runner import InterruptedRunError, resume, run

CARRIED = {"optimizer_state": "carry", "options": {"sgd": {"momentum": 0.9}}}
LITTLE = CARRIED | {"relax": "lcn", "control": "none", "epochs": 4, "branch_epochs": 1, "switch": "at:2", "probe": "weights"}
FIRST = {"seeds": "0", "relax": "lcn", "control": "none", "switch": "at:1", "probe": "weights"}
GROWING = [
    FIRST,
    FIRST | {"seeds": "0,1"},
    FIRST | {"seeds": "0,1", "relax": "lcn,efcn", "control": "continued"},
    FIRST | {"seeds": "0,1", "relax": "lcn,efcn", "control": "continued", "switch": "at:1,6it,3", "probe": "weights,delta"},
]


class Hearing(Silent):
    """What was said, which segments began, at which steps, and how they ended."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.begun: list[str] = []
        self.steps: dict[str, list[int]] = {}
        self.ends: dict[str, str] = {}

    def say(self, text: str) -> None:
        self.lines += [] if text.startswith(("loading", "stopping")) else [text]

    def started(self, segment) -> None:
        self.begun.append(segment.title)

    def ended(self, segment, outcome, *, before=False) -> None:
        self.ends[segment.title] = outcome

    def trained(self, segment, iteration, row) -> None:
        self.steps.setdefault(segment.title, []).append(iteration)


class Stopping(Hearing):
    """Stops the run when a segment has taken so many steps."""

    def __init__(self, kind: str, steps: int) -> None:
        super().__init__()
        self.kind, self.at = kind, steps

    def trained(self, segment, iteration, row) -> None:
        if segment.kind == self.kind and iteration >= self.at:
            os.kill(os.getpid(), 2)


def timeless(value: Any) -> Any:
    """Without what the clock on the wall says, nor what follows from it."""
    if isinstance(value, dict):
        return {name: timeless(one) for name, one in value.items() if name not in ("seconds", "modified", "digest", "path")}
    return [timeless(one) for one in value] if isinstance(value, list) else value


def left(path: Path) -> dict[str, Any]:
    """All files of a run that do not tell the time or the machine; of JSON, and in its order, what does not."""
    found: dict[str, Any] = {}
    for file in path.rglob("*"):
        if file.is_file() and file.name not in (".lock", "run.json"):
            content = file.read_bytes()
            name = str(file.relative_to(path))
            if file.name == "config.toml":
                content = content.replace(str(path).encode(), b"")
            found[name] = json.dumps(timeless(json.loads(content))) if file.name in ("result.json", "results.json") else content
    return found


def files(path: Path) -> dict[str, bytes]:
    """All files of segments, but for who holds them."""
    return {str(file): file.read_bytes() for file in path.glob("segments/**/*") if file.is_file() and file.name != ".lock"}


def state(path: Path) -> dict[str, tuple[int, bytes]]:
    return {str(file.relative_to(path)): (file.stat().st_mtime_ns, file.read_bytes()) for file in path.rglob("*") if file.is_file()}


@pytest.fixture(scope="module", params=[{}, CARRIED], ids=["reset", "carry"])
def way(request) -> dict[str, Any]:
    return request.param


@pytest.fixture(scope="module")
def at_once(small, way, tmp_path_factory) -> Path:
    return run(small(**GROWING[-1], **way), out=tmp_path_factory.mktemp("once") / "run", progress="silent").path


@pytest.fixture(scope="module")
def first(small, way, tmp_path_factory) -> Path:
    return run(small(**FIRST, **way), out=tmp_path_factory.mktemp("first") / "run", progress="silent").path


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_extended_three_times_equals_one_that_was_asked_for_everything(small, way, at_once, first, tmp_path, jobs):
    if jobs == 2 and not way:
        pytest.skip("of the two, in processes of their own, that with states carried over is tried")
    shutil.copytree(first, tmp_path / "run")
    for settings in GROWING[1:]:
        assert run(small(**settings, **way, jobs=jobs), out=tmp_path / "run", progress="silent").status == "finished"
    grown, whole = left(tmp_path / "run"), left(at_once)
    if jobs == 2:
        grown["config.toml"] = grown["config.toml"].replace(b"jobs = 2", b"jobs = 1")
    assert grown.keys() == whole.keys()
    assert [name for name in whole if grown[name] != whole[name]] == []


@pytest.fixture(scope="module")
def made(small, tmp_path_factory) -> Path:
    return run(small(**LITTLE), out=tmp_path_factory.mktemp("small") / "run", progress="silent").path


class TestASmallRun:
    """A trunk and a branch; little is asked for, more is added."""

    @pytest.fixture
    def there(self, made, tmp_path) -> Path:
        return shutil.copytree(made, tmp_path / "run")

    def again(self, small, path: Path, **settings: Any) -> Hearing:
        hearing = Hearing()
        run(small(**LITTLE | settings), out=path, progress=hearing)
        return hearing

    def test_asked_for_the_same_says_and_does_nothing(self, small, there):
        hearing = self.again(small, there)
        assert hearing.lines == hearing.begun == []

    def test_says_what_is_reused_and_what_is_new(self, small, there):
        hearing = self.again(small, there, seeds="0,1", probe="weights,delta", switch="at:2,3")
        assert hearing.lines == [
            f"{there}: 2 of 6 segments are there, 4 to be trained",
            "delta measures 2 segments that are there, without training",
            "trunk, seed 0 is trained again as far as it takes to have its network at 3ep, which was not kept",
        ]
        assert hearing.ends["trunk, seed 0"] == "its network at 3ep is kept; measured by delta"
        assert hearing.ends["lcn at 2ep, seed 0"] == "measured by delta"
        assert hearing.ends["trunk, seed 1"].startswith("train ")

    def test_goes_from_the_nearest_snapshot_with_its_optimizer_to_the_next_one(self, small, there):
        assert self.again(small, there, switch="at:2,3").steps["trunk, seed 0"] == [0, 12, 16]
        assert self.again(small, there, switch="at:1,2,3").steps["trunk, seed 0"] == [0, 4, 8]

    def test_narrowed_keeps_the_rest_for_later(self, small, there):
        before = {file.parent.name: file.read_bytes() for file in there.glob("segments/*/result.json")}
        hearing = Hearing()
        run(small(relax=(), control="none", epochs=4, options=CARRIED["options"]), out=there, progress=hearing)
        assert hearing.lines[-1] == "1 segment of before not asked for now, kept for when asked for again"
        [trunk] = Results.read(there).segments
        assert not trunk.probes
        assert {file.parent.name: file.read_bytes() for file in there.glob("segments/*/result.json")} == before
        hearing = self.again(small, there)
        assert hearing.begun == []
        assert [segment.kind for segment in Results.read(there).segments] == ["trunk", "branch"]

    def test_other_seeds_alone_are_a_question_like_any_other(self, small, there):
        assert (
            self.again(small, there, seeds="3", relax=(), control="continued").lines[0]
            == f"{there}: 0 of 2 segments are there, 2 to be trained"
        )
        assert {segment.seed for segment in Results.read(there).segments} == {3}
        assert not self.again(small, there, seeds="3", relax=(), control="continued").begun

    @pytest.mark.parametrize("unrecorded", [False, True], ids=["", "where an earlier version did not note the options"])
    def test_a_probe_with_other_options_measures_anew(self, small, there, unrecorded):
        if unrecorded:
            for file in there.glob("segments/*/result.json"):
                table = read_table(file)
                del table["left"]["probes"], table["digest"]
                write_json(file, sealed(table))
        options = CARRIED["options"] | {"weights": {"bins": 7}}
        hearing = self.again(small, there, probe=(), options=CARRIED["options"])
        hearing = self.again(small, there, options=options)
        assert hearing.lines[1:] == ["weights measures 2 segments that are there, without training"]
        whole = run(small(**LITTLE | {"options": options}), out=there.parent / "whole", progress="silent").path
        assert left(there) == left(whole)
        assert not self.again(small, there, options=options).begun

    @pytest.mark.parametrize(
        ("settings", "what"),
        [
            ({"epochs": 5}, r"epochs \(4 there, 5 here\)"),
            ({"batch_size": 5, "lr": 0.2}, r"lr \(0\.1 there, 0\.2 here\), batch_size \(10 there, 5 here\)"),
            ({"optimizer_state": "reset"}, r"optimizer_state \('carry' there, 'reset' here\)"),
            ({"options": {"sgd": {"momentum": 0.5}}}, r"momentum of sgd \(0\.9 there, 0\.5 here\)"),
            ({"options": CARRIED["options"] | {"cnn1d": {"channels": 4}}}, r"channels of cnn1d \(3 there, 4 here\)"),
            ({"train_limit": 20, "seeds": "0,1"}, r"train_limit \(None there, 20 here\)"),
        ],
    )
    def test_what_is_another_experiment_is_refused_and_nothing_changes(self, small, there, settings, what):
        (there / ".lock").unlink()
        before = state(there)
        with pytest.raises(RunError, match=f"holds another experiment, which differs in {what}; choose another --out"):
            self.again(small, there, **settings)
        assert state(there) == before

    def test_what_cannot_start_changes_nothing(self, small, there):
        (there / ".lock").unlink()
        before = state(there)
        with pytest.raises(AnarchError, match="nothing"):
            self.again(small, there, relax="lcn,efcn", layers="nothing*", probe="weights,delta")
        assert state(there) == before

    def test_a_machine_that_does_not_come_to_the_same_weights_is_told(self, small, there, monkeypatch):
        before = files(there)
        monkeypatch.setattr("anarch_core.segment.retracing.tensors_digest", lambda path: str(path))
        results = run(small(**LITTLE | {"switch": "at:1,2"}), out=there, progress="silent")
        assert results.status == "failed"
        [failed] = results.failed.values()
        assert "trained again from 0ep to 2ep does not come to the same weights" in failed.error
        assert [skipped.title for skipped in results.skipped.values()] == ["lcn at 1ep, seed 0"]
        assert [segment.kind for segment in results.segments] == ["trunk", "branch"]
        assert files(there) == before
        monkeypatch.undo()
        assert self.again(small, there, switch="at:1,2").begun == ["trunk, seed 0", "lcn at 1ep, seed 0"]

    def test_another_schedule_is_asked_about_the_trunk_that_is_there(self, small, there):
        options = CARRIED["options"] | {"plateau": {"min_delta": 100.0}}  # nothing ever improves: one plateau, after its patience
        settings = {"switch": "plateau:1", "options": options}
        self.again(small, there, **settings)
        whole = run(small(**LITTLE | settings), out=there.parent / "whole", progress="silent")
        assert [segment.switch_epoch for segment in whole.segments if segment.kind == "branch"] != []
        assert timeless(read_table(there / "results.json")) == timeless(read_table(whole.path / "results.json"))


@pytest.mark.parametrize(("kind", "steps"), [("trunk", 5), ("trunk", 9), ("branch", 1)])
def test_stopped_in_the_midst_and_asked_for_more(small, tmp_path, kind, steps):
    more = LITTLE | {"switch": "at:1,2,3", "probe": "delta,weights", "relax": "lcn,efcn"}
    with pytest.raises(InterruptedRunError):
        run(small(**LITTLE), out=tmp_path / "run", progress=Stopping(kind, steps))
    with pytest.raises(InterruptedRunError):  # while the trunk is finished, or trained again
        run(small(**more), out=tmp_path / "run", progress=Stopping("trunk", 12))
    resume(tmp_path / "run", progress="silent")
    assert left(tmp_path / "run") == left(run(small(**more), out=tmp_path / "whole", progress="silent").path)


def test_a_network_that_draws_random_numbers_is_trained_again_from_its_start(small, module_of, tmp_path):
    name = module_of(
        "from torch import nn\n"
        "def dropping(input_shape, classes):\n"
        "    layers = nn.Conv1d(1, 3, 3, padding=1), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(48, classes)\n"
        "    return nn.Sequential(*layers)\n"
    )

    def config(switch: str) -> RunConfig:
        asked = small(**LITTLE | {"switch": switch})
        return attrs.evolve(asked, model=f"{name}:dropping", options=CARRIED["options"])

    run(config("at:1"), out=tmp_path / "run", progress="silent")
    hearing = Hearing()
    run(config("at:1,3"), out=tmp_path / "run", progress=hearing)
    assert hearing.steps["trunk, seed 0"] == [0, 4, 8, 12, 16]
    whole = run(config("at:1,3"), out=tmp_path / "whole", progress="silent").path
    assert left(tmp_path / "run") == left(whole)
