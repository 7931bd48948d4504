"""What is left of a run is taken where it is whole; what is damaged is made again, to the same bytes, and said."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from anarch_core.checkpoint.schema import SEGMENT_STATE
from anarch_core.checkpoint.state import load_state, save_state
from anarch_core.errors import RunError
from anarch_core.experiment import inventory
from anarch_core.experiment.results import Results
from anarch_core.files.tables import read_table, sealed, write_json
from anarch_core.report.writer import write_report
from anarch_core.running.progress import Silent
from anarch_core.running.runner import InterruptedRunError, resume, run


class Hearing(Silent):
    """What was said, which segments were trained, and how far."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.begun: list[str] = []
        self.steps: list[int] = []

    def say(self, text: str) -> None:
        self.lines += [] if text.startswith(("loading", "stopping")) else [text]

    def started(self, segment) -> None:
        self.begun.append(segment.kind)

    def trained(self, segment, iteration, row) -> None:
        self.steps += [] if row is None else [iteration]


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory) -> Path:
    """A trunk, left after its first epoch by a branch that takes its optimizer's state along; two probes with tensors."""
    config = small(
        epochs=2, branch_epochs=1, switch="at:1", control=(), probe="weights", optimizer_state="carry", options={"sgd": {"momentum": 0.9}}
    )
    return run(config, out=tmp_path_factory.mktemp("whole") / "run", progress="silent").path


@pytest.fixture
def damaged(whole, tmp_path) -> Path:
    """A copy, to be damaged."""
    return shutil.copytree(whole, tmp_path / "run")


def segment(path: Path, kind: str) -> Path:
    [found] = [found for found in Results.read(path).segments if found.kind == kind]
    return path / "segments" / found.id


def left(path: Path) -> dict[str, Any]:
    files = {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.glob("segments/**/*")
        if file.is_file() and file.name != "result.json"
    }
    results = {file.parent.name: read_table(file) for file in path.glob("segments/*/result.json")}
    return files | {name: {key: table[key] for key in table if key not in ("seconds", "left", "digest")} for name, table in results.items()}


def resumed(path: Path) -> Hearing:
    hearing = Hearing()
    resume(path, progress=hearing)
    return hearing


def flip(path: Path, where: int = -5) -> None:
    """One bit, as a disk flips it: nothing else tells of it."""
    found, content = path.stat(), bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("file", "damage", "what"),
    [
        ("result.json", lambda path: path.write_text(path.read_text().replace('"seed": 0', '"seed": 1')), "was altered"),
        ("result.json", lambda path: path.write_text("null"), "is not what anarch wrote: expected a table, got None"),
        ("final.safetensors", flip, "was altered"),
        ("final.safetensors", lambda path: os.truncate(path, 0), "has 0 bytes, not"),
        ("snapshots/4.safetensors", Path.unlink, "is missing"),
        ("snapshots/4.optimizer.safetensors", folder, "is a folder"),
        ("probes/weights-end.safetensors", pipe, "is a pipe"),
    ],
)
def test_a_damaged_trunk_is_made_again_and_its_branch_stays(whole, damaged, file, damage, what):
    damage(segment(damaged, "trunk") / file)
    hearing = resumed(damaged)
    [line] = hearing.lines
    assert line.startswith("trunk, seed 0 is made again: ")
    assert f"{file} {what}" in line
    assert hearing.begun == ["trunk"]
    assert left(damaged) == left(whole)
    assert not resumed(damaged).lines


def test_a_report_says_what_is_damaged(damaged, one_figure):
    final = segment(damaged, "branch") / "final.safetensors"
    flip(final)
    report = write_report([damaged])
    assert report.damaged == [f"{final} was altered; anarch resume {damaged} makes it again"]
    assert f"Damaged: {final} was altered" in report.path.read_text()


@pytest.mark.parametrize("file", ["segment.json", "history.jsonl"])
def test_what_says_the_same_elsewhere_is_written_again_and_nothing_is_trained(whole, damaged, file):
    flip(segment(damaged, "branch") / file)
    hearing = resumed(damaged)
    [line] = hearing.lines
    assert line.endswith(f"{file} was altered; it is written again")
    assert not hearing.begun
    assert left(damaged) == left(whole)


def test_a_branch_that_started_from_another_snapshot_than_its_parent_has_is_made_again(whole, damaged):
    file = segment(damaged, "branch") / "result.json"
    table = read_table(file)
    table["left"]["parent"] = "0" * 64
    del table["digest"]
    write_json(file, sealed(table))
    assert resumed(damaged).begun == ["branch"]
    assert left(damaged) == left(whole)


def test_a_long_file_is_believed_by_size_time_and_header_unless_a_network_starts_from_it(whole, damaged, monkeypatch):
    monkeypatch.setattr(inventory, "READ_WHOLE", 0)
    trunk = segment(damaged, "trunk")
    flip(trunk / "final.safetensors")
    flip(trunk / "snapshots" / "4.safetensors")
    assert not resumed(damaged).begun
    (trunk / "final.safetensors").touch()
    assert resumed(damaged).begun == ["trunk"]
    flip(trunk / "snapshots" / "4.safetensors")
    (segment(damaged, "branch") / "final.safetensors").unlink()
    assert resumed(damaged).begun == ["trunk", "branch"]
    assert left(damaged) == left(whole)


def test_a_run_that_noted_nothing_is_judged_by_the_digests_in_its_checkpoints(whole, damaged):
    for file in damaged.glob("segments/*/result.json"):
        write_json(file, {key: value for key, value in read_table(file).items() if key not in ("left", "digest")})
    assert resumed(damaged).lines == resumed(damaged).begun == []
    flip(segment(damaged, "branch") / "final.safetensors")
    assert resumed(damaged).begun == ["branch"]
    assert left(damaged) == left(whole)


def test_a_folder_that_holds_something_is_put_aside(damaged):
    final = segment(damaged, "branch") / "final.safetensors"
    folder(final)
    (final / "letter").write_text("somebody's")
    resumed(damaged)
    [aside] = final.parent.glob("final.safetensors.aside.*")
    assert (aside / "letter").read_text() == "somebody's"


class TestASavedState:
    @pytest.fixture
    def stopped(self, whole, small, tmp_path) -> Path:
        """The run, stopped in its branch; the trunk is finished."""

        class Stopping(Hearing):
            def trained(self, segment, iteration, row) -> None:
                if segment.kind == "branch":
                    os.kill(os.getpid(), 2)

        out = tmp_path / "run"
        out.mkdir()
        shutil.copy(whole / "config.toml", out)
        with pytest.raises(InterruptedRunError):
            resume(out, progress=Stopping())
        return out

    @pytest.mark.parametrize(
        ("file", "damage"),
        [
            ("resume.safetensors", flip),
            ("resume.safetensors", Path.unlink),
            ("resume.safetensors", lambda path: shutil.copy(path.with_name("probes") / "weights-start.safetensors", path)),
            ("history.jsonl", lambda path: os.truncate(path, 10)),
            ("probes/weights-start.safetensors", flip),
        ],
    )
    def test_is_gone_on_with_only_if_all_that_it_counts_on_is_whole(self, whole, stopped, file, damage):
        [state] = stopped.glob("segments/*/resume.safetensors")
        damage(state.parent / file)
        hearing = resumed(stopped)
        [line] = hearing.lines
        assert line.startswith("efcn at 1ep, seed 0 is made again: ")
        assert str(state.parent) in line
        assert hearing.begun == ["branch"]
        assert left(stopped) == left(whole)

    def test_of_another_segment_is_not_taken(self, stopped):
        [state] = stopped.glob("segments/*/resume.safetensors")
        trunk = segment(stopped, "trunk")
        shutil.copy(state, trunk)
        (trunk / "result.json").unlink()
        assert "resume.safetensors is the saved state of another segment" in resumed(stopped).lines[0]

    @pytest.mark.parametrize("same", [True, False])
    def test_is_taken_only_where_the_parent_has_the_snapshot_that_it_started_from(self, whole, stopped, same):
        """On a GPU, a parent that is made again may come to other bytes."""
        [state] = stopped.glob("segments/*/resume.safetensors")
        tensors, strings = load_state(state)
        table = json.loads(strings[SEGMENT_STATE])
        if not same:
            table["left"]["parent"] = "0" * 64
        save_state(state, tensors, {SEGMENT_STATE: json.dumps(table)})
        assert resumed(stopped).steps == ([] if same else [4])
        assert left(stopped) == left(whole)


def test_a_configuration_that_describes_none_of_the_finished_segments_is_refused(damaged):
    config = damaged / "config.toml"
    config.write_text(config.read_text().replace("momentum = 0.9", "momentum = 0.8"))
    with pytest.raises(RunError, match=r"none of the 2 finished segments in .* belongs to what config.toml describes"):
        resume(damaged, progress="silent")


@pytest.mark.parametrize("place", [".lock", "segments", "segments/*/.lock", "segments/*/snapshots"])
def test_a_link_out_of_the_run_directory_is_not_written_through(damaged, tmp_path, place):
    flip(segment(damaged, "trunk") / "final.safetensors")
    path = next(damaged.glob(place.replace("*", segment(damaged, "trunk").name)))
    elsewhere = path.rename(tmp_path / "elsewhere")
    path.symlink_to(elsewhere)
    before = [(file, file.read_bytes()) for file in sorted(elsewhere.rglob("*")) if file.is_file()]
    with pytest.raises(RunError, match=f"{path} is a link"):
        resume(damaged, progress="silent")
    assert [(file, file.read_bytes()) for file in sorted(elsewhere.rglob("*")) if file.is_file()] == before


def test_what_a_user_put_beside_the_files_of_a_segment_stays(damaged):
    trunk = segment(damaged, "trunk")
    (trunk / "mine").mkdir()
    (trunk / "best").symlink_to("final.safetensors")
    flip(trunk / "final.safetensors")
    resumed(damaged)
    assert (trunk / "mine").is_dir()
    assert (trunk / "best").is_symlink()


def test_a_run_directory_may_be_a_link_and_lie_below_one(whole, damaged, tmp_path):
    (tmp_path / "linked").symlink_to(damaged, target_is_directory=True)
    flip(segment(damaged, "trunk") / "final.safetensors")
    assert resumed(tmp_path / "linked").begun == ["trunk"]
    assert left(damaged) == left(whole)


@pytest.mark.parametrize("content", ["null", "[]", "[" * 100_000, '{"data_sha256": NaN}'])
def test_a_run_json_that_anarch_did_not_write_is_refused_in_one_line(damaged, content):
    (damaged / "run.json").write_text(content)
    with pytest.raises(RunError, match=r"run\.json") as caught:
        resume(damaged, progress="silent")
    assert len(str(caught.value)) < 300
    assert json.loads((damaged / "results.json").read_text())["status"] == "finished"
