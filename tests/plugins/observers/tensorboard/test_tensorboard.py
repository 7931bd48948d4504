"""What TensorBoard reads back: a run for each segment, each step once, wherever a run was stopped."""

from __future__ import annotations

import pytest

from anarch_core.errors import MissingDependencyError, RunError
from anarch_core.observer import EpochDone, SegmentsPlanned, SegmentStarted
from anarch_core.plugin import get_registry
from anarch_core.running.runner import run
from anarch_core.testing.observer import BRANCH, TRUNK, UNIT, resumed, stopped, whole

pytest.importorskip("tensorboard")


def tell(story):
    observer = get_registry().create("observer", "tensorboard")
    for event in story:
        observer.observe(event)
    observer.close()


def read(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder), purge_orphaned_data=False)
    accumulator.Reload()
    return accumulator


def scalars(folder):
    accumulator = read(folder)
    return {tag: shortened((event.step, event.value) for event in accumulator.Scalars(tag)) for tag in accumulator.Tags()["scalars"]}


def shortened(points):
    """To the digits that a float32 has for certain."""
    return [(step, float(f"{value:.6g}")) for step, value in points]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    tell(whole(path))
    return path / "tensorboard"


def test_a_run_for_each_segment_on_the_clock_of_its_network(folder):
    assert {path.name for path in folder.iterdir()} == {BRANCH.title, TRUNK.title}
    found = scalars(folder / BRANCH.title)
    assert found["loss/train"] == shortened((UNIT * (1 + epoch), 2.0 / (1 + epoch)) for epoch in range(4))
    assert [step for step, _ in found["accuracy/test"]] == [UNIT, UNIT * 4]
    assert [step for step, _ in found["learning_rate"]] == [UNIT, UNIT * 2, UNIT * 3, UNIT * 4]
    assert found["probe/norms/norm"] == [(UNIT, 1.5), (UNIT * 4, 1.5)]
    assert "probe/norms/share" not in found
    assert found["final/train_accuracy"] == [(UNIT * 4, 60.0)]


def test_says_what_a_segment_is_and_fills_the_table_of_hyperparameters(folder):
    found = read(folder / BRANCH.title)
    text = found.Tensors("segment/text_summary")[0].tensor_proto.string_val[0].decode()
    assert f'"parent": "{TRUNK.id}"' in text
    assert "_hparams_/session_start_info" in found.summary_metadata
    content = found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    for name in (b"settings.batch_size", b"relaxation", b"wide>wider", b"switch_epoch"):
        assert name in content


@pytest.mark.parametrize("last", ["stopped", "killed"])
def test_a_run_in_parts_reads_as_one_that_was_not_stopped(folder, tmp_path, last):
    story = stopped(tmp_path)
    if last == "stopped":
        tell(story)
    else:
        observer = get_registry().create("observer", "tensorboard")
        for event in story[:-1]:
            observer.observe(event)  # and never closed
    tell(resumed(tmp_path))
    tell(whole(tmp_path, earlier=True))
    for name in (TRUNK.title, BRANCH.title):
        assert scalars(tmp_path / "tensorboard" / name) == scalars(folder / name)


def test_two_segments_of_one_title_have_runs_of_their_own(tmp_path):
    import attrs

    begun, *_ = whole(tmp_path)
    twins = (TRUNK, attrs.evolve(TRUNK, id="ffffffffffff"))
    tell([begun, SegmentsPlanned(segments=twins), *(SegmentStarted(segment=twin, iteration=0, epoch=0, step=0) for twin in twins)])
    assert sorted(path.name for path in (tmp_path / "tensorboard").iterdir()) == [f"{TRUNK.title} {twin.id}" for twin in twins]


def test_other_files_stay(tmp_path):
    mine = tmp_path / "tensorboard" / TRUNK.title / "notes.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    tell(whole(tmp_path))
    assert mine.read_text() == "mine"


def test_nothing_is_written_through_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="put the folder itself in its place"):
        tell(whole(tmp_path / "run"))
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_the_package_that_is_missing_is_named(monkeypatch):
    import sys

    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingDependencyError, match=r"needs the package tensorboard .*; pip install 'anarch\[tensorboard\]'"):
        get_registry().create("observer", "tensorboard")


def test_a_small_run_is_read_back(small, tmp_path):
    results = run(small(switch="at:1", probe="delta", observe="tensorboard"), out=tmp_path, progress="silent")
    folders = {path: str(read(path).Tensors("segment/text_summary")) for path in (tmp_path / "tensorboard").iterdir()}
    for segment in results.segments:
        [folder] = [path for path, text in folders.items() if f'"id\\": \\"{segment.id}' in text or f'"id": "{segment.id}' in text]
        age = segment.switch_iteration or 0
        expected = shortened((age + 4 * row["epoch"], row["train_loss"]) for row in segment.history)
        assert scalars(folder)["loss/train"] == expected


def test_numbers_of_watched_probes_have_a_group_of_their_own(tmp_path):
    begun, planned, started, *_ = whole(tmp_path)
    row = {"epoch": 1, "train_loss": 1.0, "delta.off_local": 0.5}
    tell([begun, planned, started, EpochDone(segment=TRUNK, epoch=1, iteration=UNIT, step=UNIT, row=row)])
    assert scalars(tmp_path / "tensorboard" / TRUNK.title)["watched/delta/off_local"] == [(UNIT, 0.5)]
