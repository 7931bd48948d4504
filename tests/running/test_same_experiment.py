"""How the machine is shared by those who go on with a run."""

from __future__ import annotations

import attrs
import pytest

from anarch_core.experiment.store import RunStore
from anarch_core.running.same_experiment import same_experiment


@pytest.mark.parametrize(
    ("before", "now", "jobs"),
    [
        ({"device": "cpu"}, {"device": "cpu"}, 8),
        ({"device": "cuda"}, {"device": "cuda:0,cuda:2"}, 8),
        ({"device": "cpu"}, {"device": "cuda"}, None),  # where it would be 8 on each card
        ({"device": "cuda:1"}, {"device": "cpu"}, None),
        ({"device": "cpu"}, {"device": "cpu", "workers": "slurm"}, None),
        ({"device": "cpu"}, {"device": "cuda", "jobs": 3}, 3),
    ],
)
def test_jobs_are_kept_where_they_mean_the_same(small, tmp_path, before, now, jobs):
    config = small(jobs=8, threads=2)
    found = same_experiment(
        attrs.evolve(config, **{"jobs": None, "threads": None, **now}), attrs.evolve(config, **before), RunStore(tmp_path)
    )
    assert (found.jobs, found.threads) == (jobs, 2)
