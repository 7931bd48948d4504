"""In which condition the files of a segment are: of a finished one or not, whole or damaged, from its parent's snapshot or another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs

from anarch_core.checkpoint.file import read_header
from anarch_core.checkpoint.schema import SEGMENT_STATE
from anarch_core.errors import AnarchError, CheckpointError
from anarch_core.experiment.inventory import Inventory, damage, tensors_digest
from anarch_core.experiment.segment_result import SegmentResult
from anarch_core.experiment.store import SegmentStore
from anarch_core.files.tables import in_short


@attrs.frozen(kw_only=True)
class Condition:
    """What is found of a segment.

    Attributes:
        result: of a finished one whose result file is whole.
        left: what it noted of its files; None where an earlier version noted nothing, and for one that has not begun.
        wrong: what is wrong with its files, in a few words by name.
    """

    result: SegmentResult | None = None
    left: Inventory | None = None
    wrong: Mapping[str, str] = attrs.field(factory=dict)


def condition(files: SegmentStore) -> Condition:
    """Look at the files of a segment: at all of them where it is finished, at what a saved state counts on where it is not."""
    for path, look in ((files.result_file, _finished), (files.resume_file, _under_way)):
        if path.exists() or path.is_symlink():
            try:
                return look(files)
            except AnarchError as error:
                return Condition(wrong={path.name: str(error).removeprefix(f"{path} ")})
    return Condition()


def started_from(left: Inventory | None, snapshot: Path | None) -> bool:
    """Whether a segment started from the snapshot that its parent has now, as far as that was noted.

    Args:
        left: by the segment.
        snapshot: of its parent; None for a fresh network.
    """
    if left is None or snapshot is None:
        return True
    try:
        return tensors_digest(snapshot) == left.parent
    except CheckpointError:
        return False


def _finished(files: SegmentStore) -> Condition:
    wrong = _damaged(files, [files.result_file])
    if wrong:
        return Condition(wrong=wrong)
    result, left = files.finished()
    if left is not None:
        return Condition(result=result, left=left, wrong=left.damage(files.path))
    networks = [files.final_file, *files.path.glob("snapshots/*.safetensors"), *files.path.glob("probes/*.safetensors")]
    return Condition(result=result, wrong=_damaged(files, networks))


def _under_way(files: SegmentStore) -> Condition:
    wrong = _damaged(files, [files.resume_file])
    if wrong:
        return Condition(wrong=wrong)
    state = read_header(files.resume_file).table(SEGMENT_STATE)
    if not isinstance(state, dict) or not {"training", "history", "seconds", "notes"} <= state.keys():
        return Condition(wrong={files.resume_file.name: f"holds no saved state: {in_short(state)}"})
    if state.get("segment", files.path.name) != files.path.name:
        return Condition(wrong={files.resume_file.name: "is the saved state of another segment"})
    if "left" in state:
        left = Inventory.from_json(state["left"], files.resume_file)
        return Condition(left=left, wrong=left.damage(files.path, growing=files.history_file.name))
    wrong = _damaged(files, [files.history_file])
    if not wrong and files.history_file.stat().st_size < state["history"]:
        wrong = {files.history_file.name: "has lost rows that the saved state counts on"}
    return Condition(wrong=wrong)


def _damaged(files: SegmentStore, paths: Iterable[Path]) -> dict[str, str]:
    found = {path.relative_to(files.path).as_posix(): damage(path) for path in paths}
    return {name: what for name, what in found.items() if what is not None}
