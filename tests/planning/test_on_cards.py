"""How many processes train on which cards, as far as the memory of each and of the host goes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anarch_core.cards import CONTEXT_BYTES, chosen
from anarch_core.errors import ConfigError, OutOfMemoryError
from anarch_core.planning.need import Need
from anarch_core.planning.on_cards import Cards, Load, share_cards

GB = 10**9


def share(
    *free, jobs=None, parallel=99, peak=5.9, data=10.0, data_on="device", named=False, kept=0.0, host=1000.0, host_each=2.0, shards=1
):
    """Names of the places, with what is said of others; all sizes in GB."""
    places = chosen("cuda", [str(number) for number in range(len(free))])
    found = Cards(
        places=places,
        named=named,
        free={place.name: int(size * GB) for place, size in zip(places, free, strict=True)},
        kept=int(kept * GB),
        host_free=int(host * GB),
        host_each=int(host_each * GB),
    )
    load = Load(
        need=Need(peak_bytes=int(peak * GB), work="training (efcn)", model_bytes=1), inputs=int(data * GB), targets=0, data_on=data_on
    )
    return share_cards(found, load, jobs=jobs, parallel=parallel, shards=shards)


def names(*free, **given):
    places, _ = share(*free, **given)
    return [place.name for place in places]


class TestOneCard:
    def test_one_segment_at_once_unless_the_user_says_otherwise(self):
        assert names(80) == ["cuda:0"]
        assert names(80, jobs=4) == ["cuda:0"] * 4

    def test_data_and_cuda_are_counted_for_each_process(self):
        why = (
            r"training \(efcn\), 4 segments at once on cuda:0, needs 65\.7 GB \(4 times 16\.4 GB: networks 5\.9 GB, data 10\.0 GB, "
            r"CUDA 536\.9 MB\), but 24\.0 GB are free there; use fewer --jobs$"
        )
        with pytest.raises(OutOfMemoryError, match=why) as raised:
            share(24, jobs=4)
        assert (raised.value.available, raised.value.needed > 65 * GB) == (24 * GB, True)

    def test_data_in_the_hosts_memory_leave_room(self):
        with pytest.raises(OutOfMemoryError, match=r"; use fewer --jobs, or keep the data in the host's memory \(--data-on host\)$"):
            share(26, jobs=4)
        places, _ = share(26, jobs=4, data_on="host")
        assert [place.data_on for place in places] == ["host"] * 4
        with pytest.raises(OutOfMemoryError, match=r"data 0 B, .*; use fewer --jobs$"):
            share(24, jobs=4, data_on="host")

    @pytest.mark.parametrize(("jobs", "place"), [(2, "device"), (4, "host")])
    def test_data_go_to_the_card_if_those_of_all_take_half_of_it_at_most(self, jobs, place):
        places, _ = share(60, jobs=jobs, data_on="auto")
        assert {each.data_on for each in places} == {place}

    def test_a_single_process_is_this_one_which_has_the_data_there_already(self):
        assert names(6 + 10, kept=10) == ["cuda:0"]
        with pytest.raises(OutOfMemoryError, match=r"needs 5\.9 GB, but cuda:0 has 5\.0 GB free; use a smaller --batch-size"):
            share(15, kept=10)


class TestSeveralCards:
    def test_jobs_are_for_each_card(self):
        assert names(80, 80, jobs=2) == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]

    def test_no_more_processes_than_segments(self):
        assert names(80, 80, 80, 80, parallel=2) == ["cuda:0", "cuda:1"]
        assert names(80, 80, 80, 80, jobs=2, parallel=5) == ["cuda:0", "cuda:1", "cuda:2", "cuda:3", "cuda:0"]
        assert names(80, 80, parallel=1) == ["cuda:0"]

    def test_a_card_that_is_full_is_left_out_and_said(self):
        places, notes = share(80, 3, 80)
        assert [place.name for place in places] == ["cuda:0", "cuda:2"]
        assert notes == ("cuda:1 is left out: 3.0 GB are free there, and training (efcn) needs 16.4 GB",)

    def test_a_card_that_was_named_is_not_left_out(self):
        with pytest.raises(OutOfMemoryError, match=r"on cuda:1 needs 16\.4 GB \(networks .*; choose other cards \(--device\)$"):
            share(80, 3, 80, named=True)

    def test_the_first_card_is_not_left_out(self):
        with pytest.raises(OutOfMemoryError, match=r"on cuda:0 needs 16\.4 GB"):
            share(3, 80, 80)

    def test_cards_differ_in_where_they_have_the_data(self):
        places, _ = share(80, 18, data_on="auto")
        assert [(place.name, place.data_on) for place in places] == [("cuda:0", "device"), ("cuda:1", "host")]


class TestTheHostsMemory:
    def test_limits_the_processes_that_nobody_asked_for(self):
        assert names(80, 80, 80, 80, host=11, host_each=4) == ["cuda:0", "cuda:1"]
        assert names(80, 80, host=3, host_each=4) == ["cuda:0"]

    def test_refuses_those_that_somebody_did(self):
        why = r"4 segments at once, each in its own process, needs 16\.0 GB of the host's memory, but 11\.0 GB are free; use fewer --jobs"
        with pytest.raises(OutOfMemoryError, match=why):
            share(80, 80, jobs=2, host=11, host_each=4)

    def test_has_the_data_of_this_process_besides_once_they_are_off_the_card(self):
        assert names(80, 80, 80, 80, host=11, host_each=4, kept=4) == ["cuda:0"]
        with pytest.raises(OutOfMemoryError, match=r"needs 20\.0 GB of the host's memory"):
            share(80, 80, jobs=2, host=19, host_each=4, kept=4)


class TestProcessesThatTrainASegmentTogether:
    def test_have_cards_that_follow_each_other_one_each(self):
        places, notes = share(80, 80, 80, 80, shards=2)
        assert [[process.name for process in place.members] for place in places] == [["cuda:0", "cuda:1"], ["cuda:2", "cuda:3"]]
        assert [(place.name, place.visible) for place in places] == [("cuda:0,cuda:1", "0,1"), ("cuda:2,cuda:3", "2,3")]
        assert [(process.device, process.visible) for process in places[1].members] == [("cuda", "2"), ("cuda", "3")]
        assert notes == ()

    def test_are_processes_of_their_own_also_where_one_segment_is_trained(self):
        (place,), _ = share(80, 80, shards=2)
        assert len(place.members) == 2
        with pytest.raises(OutOfMemoryError, match=r"on cuda:0 needs 16\.4 GB \(networks 5\.9 GB, data 10\.0 GB, CUDA 536\.9 MB\)"):
            share(16, 80, shards=2)

    def test_jobs_are_for_each_of_their_groups(self):
        assert names(80, 80, 80, 80, shards=2, jobs=2) == ["cuda:0,cuda:1", "cuda:2,cuda:3"] * 2
        assert names(80, 80, 80, 80, shards=2, parallel=1) == ["cuda:0,cuda:1"]

    def test_need_a_card_each(self):
        why = r"^shards 4 needs as many cards, one for each process, and there are 2 \(cuda:0, cuda:1\); use fewer --shards$"
        with pytest.raises(ConfigError, match=why):
            share(80, 80, shards=4)

    def test_leave_out_cards_that_are_full_or_too_few(self):
        places, notes = share(80, 3, 80, 80, shards=2)
        assert [place.name for place in places] == ["cuda:0,cuda:2"]
        assert notes == (
            "cuda:1 is left out: 3.0 GB are free there, and training (efcn) needs 16.4 GB",
            "cuda:3 is left out: of 3 cards every 2 train together (--shards)",
        )
        with pytest.raises(OutOfMemoryError, match=r"on cuda:1 needs 16\.4 GB"):
            share(80, 3, shards=2)

    def test_differ_in_where_they_have_the_data(self):
        (place,), _ = share(80, 18, data_on="auto", shards=2)
        assert [process.data_on for process in place.members] == ["device", "host"]

    def test_take_of_the_hosts_memory_each(self):
        assert names(80, 80, 80, 80, shards=2, host=11, host_each=2) == ["cuda:0,cuda:1", "cuda:2,cuda:3"]
        assert names(80, 80, 80, 80, shards=2, host=9, host_each=3) == ["cuda:0,cuda:1"]
        why = r"one segment, 2 processes for each, needs 8\.0 GB of the host's memory, but 7\.0 GB are free; use fewer --shards$"
        with pytest.raises(OutOfMemoryError, match=why):
            share(80, 80, shards=2, host=7, host_each=4)


SIZE = st.floats(0.1, 100)


@given(
    st.lists(SIZE, min_size=1, max_size=5),
    st.none() | st.integers(1, 4),
    st.integers(1, 12),
    st.booleans(),
    st.sampled_from(["auto", "device", "host"]),
    SIZE,
    SIZE,
    SIZE,
    st.integers(1, 3),
)
def test_whatever_is_settled_fits(free, jobs, parallel, named, data_on, peak, data, host, shards):
    asked = {"jobs": jobs, "parallel": parallel, "named": named, "data_on": data_on, "shards": shards}
    try:
        places, _ = share(*free, peak=peak, data=data, host=host, host_each=2, **asked)
    except OutOfMemoryError:
        return
    except ConfigError:
        assert shards > len(free)
        return
    assert 1 <= len(places) <= min(parallel, len(free) // shards * (jobs or 1))
    if len(places) == shards == 1:
        assert peak <= free[0] + 1e-9
        return
    processes = [process for place in places for process in place.processes]
    assert len(processes) == shards * len(places)
    assert 2 * len(processes) <= host
    for number, size in enumerate(free):
        here = [place for place in processes if place.name == f"cuda:{number}"]
        held = sum(peak + (data if place.data_on == "device" else 0) + CONTEXT_BYTES / GB for place in here)
        assert held <= size + 1e-6
        assert len(here) <= (jobs or 1)
