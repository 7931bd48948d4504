"""What earlier processes left of the segments of a run: what is whole is taken, what is damaged is made again, and said."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import attrs

from anarch_core.errors import RunError
from anarch_core.experiment.condition import Condition, condition, started_from
from anarch_core.experiment.inventory import Inventory, damage
from anarch_core.experiment.segment_result import SegmentResult
from anarch_core.experiment.segments import Segment
from anarch_core.experiment.store import RunStore, SegmentStore
from anarch_core.files.replacing import write_text
from anarch_core.files.tables import read_table, write_json
from anarch_core.segment.stopping import Stop
from anarch_core.segment.waiting import Waiting

REWRITTEN = {"segment.json", "history.jsonl"}
"""Files that can be written again from what is whole."""


@attrs.frozen
class Taking:
    """Looks at what is there before anything is trained.

    Args:
        store: the run directory, which no other run writes to.
        say: told in a line what is damaged, and what is done about it.
        stop: whether the run was asked to stop.

    Attributes:
        lefts: by identity, what the finished segments that were taken have left.
    """

    store: RunStore
    say: Callable[[str], None]
    stop: Stop
    lefts: dict[str, Inventory] = attrs.field(init=False, factory=dict)

    def require_known(self, trunks: Callable[[int], str]) -> None:
        """Refuse a directory that has trunks, but none as the run would have it; a run that grows may ask for other seeds.

        Args:
            trunks: identity of the run's trunk for a seed.

        Raises:
            RunError: its configuration was altered.
        """
        done = [path.parent.name for path in self.store.path.glob("segments/*/result.json")]
        begun = {path.parent.name: _trunk_seed(path) for path in self.store.path.glob("segments/*/segment.json")}
        seeds = {name: seed for name, seed in begun.items() if seed is not None}
        if done and seeds and not any(trunks(seed) == name for name, seed in seeds.items()):
            msg = f"none of the {len(done)} finished segments in {self.store.path} belongs to what {self.store.config_file.name} describes"
            msg += ": it was altered since, or by another version of anarch; use an intact copy, or choose another --out"
            raise RunError(msg)

    def take(self, segments: Sequence[Segment], finished: dict[str, SegmentResult], running: Collection[str]) -> None:
        """Take the results of segments, parents first, that are whole; prepare the others to be trained.

        A finished segment whose parent is made again stays on disk, and counts again when the parent has come to the same snapshot.

        Args:
            segments: those that were not looked at before.
            finished: results by identity; completed, and what has to be made again is removed.
            running: identities of those that are being trained, which are left alone.

        Raises:
            RunError: a folder is a link to elsewhere.
        """
        noted: dict[str, Inventory | None] = {}
        for segment in segments:
            found = self._look(segment)
            if found.result is not None:
                finished[segment.id], noted[segment.id] = found.result, found.left
                self.lefts[segment.id] = self.store.stock(found.result, found.left)
        looked_at: dict[Path, str | None] = {}
        known: set[str] | None = None
        while known != set(finished):
            known = set(finished)
            for segment in reversed(segments):
                if segment.id in finished and not started_from(noted[segment.id], self.store.snapshot_left(segment)):
                    del finished[segment.id]
                if segment.id not in finished and segment.parent is not None and segment.parent.id not in running:
                    self._look_at_start(segment, segment.parent, finished, looked_at)

    def _look(self, segment: Segment) -> Condition:
        """What there is of a segment, after everything damaged is gone."""
        files = self.store.segment(segment.id)
        files.require_own_folders()
        found = condition(files)
        if _reasons(files, found):
            with files.lock(Waiting(segment.title, self.say, self.stop)):  # a process that is just ending may have written meanwhile
                found = condition(files)
                reasons = _reasons(files, found)
                if reasons and found.result is not None and set(found.wrong) <= REWRITTEN:
                    self._write_again(segment, found, found.result)
                    return found
                if reasons:
                    self._anew(segment, reasons)
                    found = Condition()
        if found.result is None:
            files.make_room()
        return found

    def _look_at_start(
        self, segment: Segment, parent: Segment, finished: dict[str, SegmentResult], looked_at: dict[Path, str | None]
    ) -> None:
        """Let the parent be made again if the segment could not start from what it left, which is read once for all its children."""
        files, iteration = self.store.segment(parent.id), 0 if segment.leaves is None else segment.leaves.iteration
        paths = [files.snapshot(iteration)]
        if segment.transition.optimizer_state == "carry":
            paths.append(files.optimizer_snapshot(iteration))
        kept = self.lefts[parent.id].files if parent.id in finished and parent.id in self.lefts else None
        if not paths[0].exists() or (kept is not None and any(path.relative_to(files.path).as_posix() not in kept for path in paths)):
            return  # it will come, or never
        looked_at |= {path: damage(path, whole=True) for path in paths if path not in looked_at}
        reasons = [f"{path} {what}" for path in paths if (what := looked_at[path]) is not None]
        if reasons:
            finished.pop(parent.id, None)
            with files.lock(Waiting(parent.title, self.say, self.stop)):
                self._anew(parent, reasons)

    def _anew(self, segment: Segment, reasons: Sequence[str]) -> None:
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        self.say(f"{segment.title} is made again: {reasons[0]}{more}")
        self.store.segment(segment.id).clear()

    def _write_again(self, segment: Segment, found: Condition, result: SegmentResult) -> None:
        files = self.store.segment(segment.id)
        files.make_room()
        write_json(files.description, segment.describe())
        write_text(files.history_file, "".join(f"{json.dumps(dict(row))}\n" for row in result.history))
        if found.left is not None:
            paths = [files.path / name for name in found.left.files]
            files.finish(result, Inventory.of(files.path, paths, found.left.parent, found.left.probes))
        for text in _reasons(files, found):
            self.say(f"{segment.title}: {text}; it is written again")


def _reasons(files: SegmentStore, found: Condition) -> list[str]:
    """Why a segment cannot stay as it is, in sentences."""
    if found.wrong:
        return [f"{files.path / name} {what}" for name, what in found.wrong.items()]
    if found.result is None and not files.resume_file.exists() and files.history_file.exists():
        return [f"there is no saved state of it in {files.path}"]
    return []


def _trunk_seed(description: Path) -> int | None:
    """The seed of a trunk by its description; None for another segment, or where that is damaged."""
    try:
        table = read_table(description)
    except RunError:
        return None
    seed = table.get("seed")
    return seed if table.get("kind") == "trunk" and isinstance(seed, int) else None
