"""What the observer ``wandb`` writes without a network, read back from its files."""

from __future__ import annotations

import json
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import anarch_core
from anarch_core.errors import MissingDependencyError
from anarch_core.plugin import get_registry

SMALL = {
    "relax": "efcn",
    "switch": "at:1",
    "epochs": 2,
    "branch_epochs": 1,
    "train_limit": 100,
    "jobs": 1,
    "probe": "delta",
    "control": "none",
}

BLOCK = 2**15
WHOLE = {1, 4}
"""A record of one piece, and the last piece of one."""


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setattr("anarch_core.running.audience.PATIENCE", 100.0)  # a machine may be busy
    return pytest.importorskip("wandb")


def records(folder: Path, kind: str) -> list[Any]:
    """What a run wrote for the server, once its last record is there: W&B writes in a process of its own."""
    [file] = folder.glob("*.wandb")
    until = time.monotonic() + 60
    while (found := list(parsed(file.read_bytes())))[-1:] == [] or found[-1].WhichOneof("record_type") != "exit":
        assert time.monotonic() < until, f"{file} has no end"
        time.sleep(0.1)
    return [getattr(record, kind) for record in found if record.WhichOneof("record_type") == kind]


def parsed(data: bytes) -> Iterator[Any]:
    """Protocol buffers in the log format of LevelDB, after a header of seven bytes."""
    from wandb.proto import wandb_internal_pb2

    at, parts = 7, b""
    while at + 7 <= len(data):
        if (left := BLOCK - at % BLOCK) < 7:  # too little for a header
            at += left
            continue
        length, type_ = struct.unpack_from("<HB", data, at + 4)
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if at > len(data):
            return
        if type_ in WHOLE:
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def rows(folder: Path) -> list[dict[str, Any]]:
    return [
        {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.item}
        for record in records(folder, "history")
    ]


def run(out: Path, **options: Any) -> tuple[Any, dict[str, Path]]:
    options = {"wandb": {"project": "trees", **options}}
    results = anarch_core.run(**SMALL, observe="wandb", options=options, out=out, progress="silent")
    folders = sorted((out / "wandb").glob("offline-run-*"))
    return results, {records(folder, "run")[0].job_type: folder for folder in folders}


def test_a_tree_is_a_group_of_runs_on_the_clock_of_the_network(wandb: Any, tmp_path: Path) -> None:
    results, folders = run(tmp_path)
    trunk, branch = results.segments
    written = {kind: records(folder, "run")[0] for kind, folder in folders.items()}
    assert written.keys() == {"trunk", "branch"}
    identity = json.loads((tmp_path / "run.json").read_text())["run"]
    assert {run.run_group for run in written.values()} == {identity}
    assert {run.project for run in written.values()} == {"trees"}
    assert written["branch"].run_id == f"{identity}-{branch.id}"
    config = {item.key: json.loads(item.value_json) for item in written["branch"].config.update}
    assert (config["parent"], config["parent_iteration"], config["switch_epoch"]) == (trunk.id, trunk.iterations_per_epoch, 1.0)
    told = {row["_step"]: row for row in rows(folders["branch"])}
    assert [told[branch.switch_iteration + row["epoch"]  * branch.iterations_per_epoch]["train_loss"] for row in branch.history] == [
        row["train_loss"] for row in branch.history
    ]  # fmt: skip
    assert told[max(told)]["delta/end/off_local"] == branch.scalars("delta", "end")["off_local"]
    summaries = records(folders["branch"], "summary")
    final = {item.key or ".".join(item.nested_key): item.value_json for record in summaries for item in record.update}
    assert json.loads(final["final/test_accuracy"]) == branch.final["test_accuracy"]


def test_a_branch_is_a_fork_where_that_is_asked_for(wandb: Any, tmp_path: Path) -> None:
    results, folders = run(tmp_path, fork=True)
    trunk, branch = results.segments
    fork = records(folders["branch"], "run")[0].branch_point
    assert (fork.run.rpartition("-")[2], fork.value, fork.metric) == (trunk.id, branch.switch_iteration, "_step")
    assert min(row["_step"] for row in rows(folders["branch"])) > branch.switch_iteration


def test_a_run_that_is_gone_on_with_is_written_whole(wandb: Any, tmp_path: Path) -> None:
    run(tmp_path)
    first = set((tmp_path / "wandb").glob("offline-run-*"))
    again = anarch_core.resume(tmp_path, progress="silent")
    second = set((tmp_path / "wandb").glob("offline-run-*")) - first
    assert len(first) == len(second) == len(again.segments)

    def told(folders: set[Path]) -> list[str]:
        written = [row for folder in folders for row in rows(folder)]
        return sorted(json.dumps({key: row[key] for key in sorted(row) if key not in ("_runtime", "_timestamp")}) for row in written)

    assert told(first) == told(second)


def test_the_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingDependencyError, match=r"needs the package wandb .*; pip install wandb"):
        get_registry().create("observer", "wandb")
