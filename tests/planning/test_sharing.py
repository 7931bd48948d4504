"""How many processes fit: each takes its networks and, unless it is this one, what this one holds without a network."""

from __future__ import annotations

import pytest

from anarch_core.errors import OutOfMemoryError
from anarch_core.planning import sharing
from anarch_core.planning.need import Need

MB = 10**6


def share(monkeypatch, free, jobs):
    monkeypatch.setattr(sharing, "available_bytes", lambda device: free * MB)
    return sharing.share_processor(
        jobs=jobs,
        threads=1,
        parallel=4,
        need=Need(peak_bytes=1030 * MB, work="training (efcn)", model_bytes=1000),
        process_bytes=740 * MB,
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
