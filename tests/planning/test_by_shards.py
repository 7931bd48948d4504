"""Among how many processes a run would fit, each of which holds a part of every relaxed layer."""

from __future__ import annotations

import attrs
import pytest

from anarch_core.cards import chosen
from anarch_core.planning import by_shards
from anarch_core.planning.need import Need
from anarch_core.planning.plan import plan_run

GB = 10**9


@pytest.fixture
def config(small):
    """Layers of 8 channels, in four processes."""
    return small(shards=4, switch="at:1", options={"cnn1d": {"channels": 8}})


def test_more_processes_hold_less_and_send_more(config):
    rows = plan_run(config, timed=False).shared_out
    assert [row.shards for row in rows] == [1, 2, 4, 8]
    assert sorted((row.held for row in rows), reverse=True) == [row.held for row in rows]
    assert sorted(row.sent for row in rows) == [row.sent for row in rows]
    assert rows[0].sent == 0
    assert all(row.fits for row in rows)


def test_no_more_processes_are_looked_at_than_a_layer_has_channels(small):
    rows = plan_run(small(shards=3, switch="at:1"), timed=False).shared_out  # 3 channels
    assert [row.shards for row in rows] == [1, 2, 3]


def test_of_one_process_nothing_is_told(config):
    plan = plan_run(attrs.evolve(config, shards=1), timed=False)
    assert plan.shared_out == ()
    assert not any("processes" in table.headings for table in plan.tables())


@pytest.fixture
def four_cards(monkeypatch):
    """Pretended ones, with 24 GB each, and a run that needs 40 GB in all."""
    monkeypatch.setattr("anarch_core.planning.sharing.cards", lambda name: chosen("cuda", "0123"))
    monkeypatch.setattr("anarch_core.planning.sharing.available_bytes", lambda name: (100 if name == "cpu" else 24) * GB)

    def need_of(networks):
        return Need(peak_bytes=40 * GB // max(network.processes for network in networks), work="training (efcn)", model_bytes=GB)

    monkeypatch.setattr(by_shards, "need_of", need_of)


def test_each_process_needs_a_card_with_room_for_its_part(config, four_cards):
    plan = plan_run(config, timed=False)
    assert [(row.shards, row.fits) for row in plan.shared_out] == [(1, False), (2, True), (4, True), (8, False)]
    assert by_shards.fewest(plan.shared_out) == 2
    assert [[process.name for process in place.members] for place in plan.places] == [["cuda:0", "cuda:1", "cuda:2", "cuda:3"]]


def rows(*fits):
    return [by_shards.SharedOut(shards=2**place, held=4, peak=GB, sent=2, fits=each) for place, each in enumerate(fits)]


@pytest.mark.parametrize(
    ("fits", "cards", "caption"),
    [
        ((False, True), True, "Each has a card of its own; the fewest that fit: 2."),
        ((False, False), True, "Each has a card of its own; none of these fits."),
        ((True, True), False, "On a processor they share its memory, on cards each has its own; the fewest that fit: 1."),
    ],
)
def test_the_fewest_that_fit_are_named(fits, cards, caption):
    table = by_shards.table(rows(*fits), cards=cards)
    assert table.caption == caption
    assert table.headings == ("processes", "weights of each", "memory of each", "sent a step by each", "fits")
    assert [row[-1] for row in table.rows] == ["yes" if each else "no" for each in fits]


def test_elsewhere_it_is_not_known_what_fits():
    table = by_shards.table(rows(None, None), cards=True)
    assert table.caption == "Each has a card of its own."
    assert "fits" not in table.headings
