"""Which machines worked on a segment, and what their kinds mean for a run."""

from __future__ import annotations

import attrs
import pytest
import torch

from anarch_core.experiment.kinds import by_kind, mixture
from anarch_core.experiment.machines import COMPLETED, Machine, joined_by, this_machine

HERE = Machine(host="n1", cpu="EPYC 7763", capability="AVX2", gpu=None, torch="2.14.1", threads=1)
THERE = attrs.evolve(HERE, host="n2")


@attrs.frozen
class Segment:
    machines: tuple[Machine, ...] = ()


def test_a_process_knows_what_it_runs_on():
    found = this_machine(torch.device("cpu"))
    assert found.host
    assert found.cpu
    assert found.gpu is None
    assert (found.torch, found.threads, found.did) == (torch.__version__, torch.get_num_threads(), "trained")
    assert found.capability == torch.backends.cpu.get_cpu_capability()


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ([], [HERE]),
        ([HERE], [HERE]),
        ([attrs.evolve(HERE, did=COMPLETED)], [attrs.evolve(HERE, did=COMPLETED)]),
        ([THERE], [THERE, HERE]),
        ([HERE, THERE], [HERE, THERE, HERE]),
        ([attrs.evolve(HERE, threads=2)], [attrs.evolve(HERE, threads=2), HERE]),
    ],
)
def test_machines_are_in_turn_and_no_two_neighbours_are_the_same(known, expected):
    assert joined_by(known, HERE) == expected


def test_what_completes_a_segment_where_it_was_trained_is_no_other_machine():
    assert joined_by([HERE], attrs.evolve(HERE, did=COMPLETED)) == [HERE]
    assert joined_by([THERE], attrs.evolve(HERE, did=COMPLETED))[-1].did == COMPLETED


@pytest.mark.parametrize(
    ("changed", "kinds"),
    [
        ({"host": "n3"}, 1),
        ({"did": COMPLETED}, 1),
        ({"cpu": "Xeon"}, 2),
        ({"capability": "DEFAULT"}, 2),
        ({"gpu": "H100"}, 2),
        ({"torch": "2.6.0"}, 2),
        ({"threads": 4}, 2),
    ],
)
def test_a_kind_is_what_rounding_depends_on(changed, kinds):
    assert len(by_kind([Segment((HERE,)), Segment((attrs.evolve(HERE, **changed),))])) == kinds


def test_nothing_is_said_of_machines_of_one_kind_nor_of_segments_that_do_not_say():
    assert mixture([]) is None
    assert mixture([Segment(), Segment((HERE, THERE)), Segment((THERE,))]) is None


def test_of_several_kinds_it_is_said_in_what_they_differ():
    card = attrs.evolve(THERE, gpu="H100", torch="2.14.1+cu130")
    assert mixture([Segment((HERE,)), Segment((card,))]) == (
        "Machines of 2 kinds worked on its segments (GPU: none, H100; torch: 2.14.1, 2.14.1+cu130). They round differently: "
        "between them numbers can be compared, bytes cannot."
    )
    assert str(card) == "H100, EPYC 7763 (AVX2), 1 thread, torch 2.14.1+cu130"
