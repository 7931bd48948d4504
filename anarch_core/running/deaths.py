"""Processes that die under a segment: whether to try it again."""

from __future__ import annotations

from anarch_core.experiment.store import SegmentStore

TRIES = 3
"""How often a segment is tried whose process dies before it gets any further."""


class Deaths:
    """Counts, by segment, how often its process died since its state was saved last."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int | None, int]] = {}

    def hopeless(self, store: SegmentStore) -> bool:
        """Note a death; whether there were so many, and nothing saved between them, that another try would end as they did."""
        identity, state = store.path.name, _saved(store)
        before, deaths = self._seen.get(identity, (state, 0))
        deaths = deaths + 1 if state == before else 1
        self._seen[identity] = state, deaths
        return deaths >= TRIES


def _saved(store: SegmentStore) -> int | None:
    """When the state was saved, in nanoseconds; None if there is none."""
    try:
        return store.resume_file.stat().st_mtime_ns
    except OSError:
        return None
