"""Which cards a run takes, and what a process is told so that it sees one of them alone."""

from __future__ import annotations

import contextlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anarch_core.cards import (
    Place,
    cards,
    chosen,
    device_choice,
    first_device,
    in_turn,
    in_use,
    one_device,
    resolve_device,
    visible_entries,
)
from anarch_core.errors import ConfigError

UUIDS = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6,GPU-5c1f"
MIG = "MIG-GPU-8932f937/1/0,MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f"


@pytest.fixture
def two_cards(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


class TestWhatTheUserSays:
    @pytest.mark.parametrize(
        ("written", "kept"),
        [
            ("auto", "auto"),
            ("cpu", "cpu"),
            ("cuda", "cuda"),
            ("cuda:1", "cuda:1"),
            (" cuda:1 ", "cuda:1"),
            ("cuda:2,cuda:0", "cuda:2,cuda:0"),
            ("cuda:0, cuda:2", "cuda:0,cuda:2"),
        ],
    )
    def test_a_choice(self, written, kept):
        assert device_choice(written) == kept

    @pytest.mark.parametrize(
        ("written", "why"),
        [
            ("", "expected auto, cpu, cuda, cuda:N"),
            ("gpu", "got 'gpu'"),
            ("cuda:", "expected"),
            ("cuda:-1", "expected"),
            ("cuda:01", "expected"),
            ("cuda:1234", "expected"),
            ("cuda:0,", "several cards as in cuda:0,cuda:2"),
            ("cuda:0,1", "several cards as in cuda:0,cuda:2"),
            ("cuda:0;cuda:1", "several cards as in cuda:0,cuda:2"),
            ("cpu,cuda:0", "cpu goes with no other device"),
            ("cuda:0,auto", "auto goes with no other device"),
            ("cuda,cuda:1", "cuda is every card already"),
            ("cuda:1,cuda:0,cuda:1", "cuda:1 is named twice"),
        ],
    )
    def test_what_is_none(self, written, why):
        with pytest.raises(ConfigError, match=why):
            device_choice(written)

    def test_cards_that_are_there(self, two_cards):
        for name in ("cpu", "cuda", "cuda:1", "cuda:1,cuda:0"):
            assert resolve_device(name) == name
        assert resolve_device("auto") == "cuda"

    @pytest.mark.parametrize("name", ["cuda:2", "cuda:0,cuda:2"])
    def test_cards_that_are_not_there(self, two_cards, name):
        with pytest.raises(ConfigError, match="'cuda:2' is not there: 2 GPU"):
            resolve_device(name)

    def test_the_variable_is_named_where_it_hides_cards(self, two_cards, monkeypatch):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,5")
        with pytest.raises(ConfigError, match=r"2 GPU\(s\) are visible by CUDA_VISIBLE_DEVICES='0,5', counted from cuda:0"):
            resolve_device("cuda:5")

    @pytest.mark.parametrize(("name", "current"), [("cpu", []), ("cuda", []), ("cuda:1", ["cuda:1"]), ("cuda:2,cuda:0", ["cuda:2"])])
    def test_cuda_without_a_number_is_the_first_that_was_chosen(self, monkeypatch, name, current):
        used = []
        monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext(used.append(device)))
        with in_use(name):
            assert used == current

    def test_one_device_where_one_is_enough(self, two_cards):
        assert one_device("cuda:1") == "cuda:1"
        with pytest.raises(ConfigError, match=r"one device is enough here, got 'cuda:1,cuda:0'; name one of them, such as cuda:1"):
            one_device("cuda:1,cuda:0")

    def test_the_first_of_several(self):
        assert [first_device(name) for name in ("cpu", "cuda", "cuda:2,cuda:0")] == ["cpu", "cuda", "cuda:2"]


class TestEntriesOfTheVariable:
    @pytest.mark.parametrize(
        ("variable", "count", "entries"),
        [
            (None, 0, []),
            (None, 3, ["0", "1", "2"]),
            ("", 0, []),
            ("-1", 0, []),
            ("0,1", 2, ["0", "1"]),
            ("2,0", 2, ["2", "0"]),
            (" 2 , 0", 2, ["2", "0"]),
            (UUIDS, 2, UUIDS.split(",")),
            (MIG, 2, MIG.split(",")),
            ("3,-1,0", 1, ["3"]),  # CUDA stops at the first that is no card
            ("0,1,99", 2, ["0", "1"]),
            ("1,1", 0, []),  # CUDA sees none
        ],
    )
    def test_each_card_keeps_its_own(self, variable, count, entries):
        assert list(visible_entries(variable, count)) == entries

    @pytest.mark.parametrize(
        ("variable", "count", "why"),
        [
            ("0", 4, r"CUDA_VISIBLE_DEVICES is '0', but PyTorch found 4 card\(s\): it was changed"),
            ("", 1, "it was changed"),
            ("0,,1", 3, "it was changed"),
            ("1,1", 2, "names 1 twice"),
        ],
    )
    def test_a_variable_that_does_not_say_which(self, variable, count, why):
        with pytest.raises(ConfigError, match=why):
            visible_entries(variable, count)

    @given(st.lists(st.text("0123456789GPUMIG-/abcdef", min_size=1), unique=True, max_size=9), st.data())
    def test_a_card_alone_is_what_stands_at_its_number(self, names, data):
        count = data.draw(st.integers(0, len(names)))
        assert list(visible_entries(",".join(names), count)) == names[:count]


class TestPlaces:
    @pytest.mark.parametrize(
        ("name", "entries", "seen"),
        [
            ("cuda", ["0"], [("cuda:0", "0")]),
            ("cuda", ["2", "0"], [("cuda:0", "2"), ("cuda:1", "0")]),
            ("cuda:1", ["GPU-a", "GPU-b"], [("cuda:1", "GPU-b")]),
            ("cuda:2,cuda:0", ["5", "6", "7"], [("cuda:2", "7"), ("cuda:0", "5")]),
        ],
    )
    def test_the_chosen_cards(self, name, entries, seen):
        assert [(place.name, place.visible) for place in chosen(name, entries)] == seen
        assert {place.device for place in chosen(name, entries)} == {"cuda"}

    def test_the_processor_is_told_nothing(self):
        assert cards("cpu") == (Place("cpu", "cpu", None),)

    def test_the_variable_of_this_process_is_kept(self, two_cards, monkeypatch):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", MIG)
        assert [place.visible for place in cards("cuda")] == MIG.split(",")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
        assert [place.visible for place in cards("cuda:1")] == ["1"]

    def test_every_card_gets_one_before_any_gets_a_second(self):
        places = chosen("cuda", ["0", "1", "2"])
        assert [place.visible for place in in_turn(places, 2)] == ["0", "1", "2", "0", "1", "2"]
