"""How many processes fit: each takes its networks and, unless it is this one, what this one holds without a network."""

from __future__ import annotations

import pytest

from anarch_core.errors import OutOfMemoryError
from anarch_core.planning import sharing
from anarch_core.planning.need import Need

MB = 10**6


def share(monkeypatch, free, jobs, shards=1):
    monkeypatch.setattr(sharing, "available_bytes", lambda device: free * MB)
    return sharing.share_processor(
        jobs=jobs,
        threads=1,
        parallel=4,
        need=Need(peak_bytes=1030 * MB, work="training (efcn)", model_bytes=1000),
        process_bytes=740 * MB,
        shards=shards,
    )


@pytest.mark.parametrize(("free", "jobs"), [(1000, 1), (1600, 2), (2600, 2), (3500, 2)])
def test_what_does_not_fit_is_refused(monkeypatch, free, jobs):
    with pytest.raises(OutOfMemoryError, match=rf"training \(efcn\).* needs .*, but cpu has {free / 1000:.1f} GB free"):
        share(monkeypatch, free, jobs)


def test_a_single_job_runs_in_this_process_and_others_bring_their_own(monkeypatch):
    assert share(monkeypatch, 1040, 1) == (1, 1)
    assert share(monkeypatch, 3600, 2) == (2, 1)
    monkeypatch.setattr(sharing, "cores", lambda: 4)
    assert share(monkeypatch, 6000, None) == (3, 1)


def test_processes_that_train_a_segment_together_each_take_their_own(monkeypatch):
    assert share(monkeypatch, 3600, None, shards=2) == (1, 1)
    why = r"training \(efcn\), 2 processes for each segment, needs 3\.5 GB, .*; on a processor fewer --shards take less$"
    with pytest.raises(OutOfMemoryError, match=why):
        share(monkeypatch, 3500, None, shards=2)
    with pytest.raises(OutOfMemoryError, match=r"2 segments at once, 2 processes for each segment, needs 7\.1 GB, .*; use fewer --jobs"):
        share(monkeypatch, 3600, 2, shards=2)


def test_the_cores_are_divided_among_all_processes(monkeypatch):
    monkeypatch.setattr(sharing, "available_bytes", lambda device: 100_000 * MB)
    monkeypatch.setattr(sharing, "cores", lambda: 16)
    large, small = (Need(peak_bytes=MB, work="training (efcn)", model_bytes=size * MB) for size in (1000, 1))
    asked = {"parallel": 99, "process_bytes": MB, "shards": 4}
    assert sharing.share_processor(jobs=None, threads=None, need=large, **asked) == (1, 4)
    assert sharing.share_processor(jobs=2, threads=None, need=large, **asked) == (2, 2)
    assert sharing.share_processor(jobs=8, threads=None, need=large, **asked) == (8, 1)
    assert sharing.share_processor(jobs=None, threads=None, need=small, **asked) == (4, 1)
