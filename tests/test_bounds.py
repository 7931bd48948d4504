"""What numbers, texts and paths from outside may be."""

from __future__ import annotations

import math
from pathlib import Path

import attrs
import pytest

from anarch_core.bounds import Between, between, normal_path, normal_text, ordinary_digits, shown


@pytest.mark.parametrize(
    ("range", "inside", "outside", "text"),
    [
        (between(1, 100), [1, 100, 1.5], [0, 101, math.nan, math.inf, 10**5000], "from 1 to 100"),
        (between(0, 1, above=True), [1, 5e-324], [0, -0.0, 1.1, -math.inf], "above 0 and up to 1"),
        (between(0, 1, below=True), [0, -0.0, 0.999], [1, math.nan], "from 0 to below 1"),
        (between(0, 1, above=True, below=True), [0.5], [0, 1], "above 0 and below 1"),
        (Between(1, 10**6), [10**6], [10**6 + 1], "from 1 to 1,000,000"),
    ],
)
def test_a_range_knows_its_numbers_and_says_which(range, inside, outside, text):
    assert [number in range for number in inside] == [True] * len(inside)
    assert [number in range for number in outside] == [False] * len(outside)
    assert str(range) == text


def test_a_range_validates_a_number_none_and_several():
    @attrs.frozen
    class Ranged:
        value: object = attrs.field(validator=between(0, 1))

    for fine in (0.5, None, (), (0, 1)):
        assert Ranged(fine).value == fine
    for bad in (2, math.nan, (0, 2)):
        with pytest.raises(ValueError, match="'value' must be from 0 to 1: "):
            Ranged(bad)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "True"),
        (-0.0, "-0.0"),
        (10**59, "1" + "0" * 59),
        pytest.param(-(10**5000), "an integer of 5001 digits", id="huge"),
        ([1, 10**400], "[1, an integer of 401 digits]"),
        ((0,) * 2000, "(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, …)"),
        pytest.param("x" * 100_000, "'" + "x" * 39 + "…" + "x" * 18 + "'", id="long"),
        ("a\nb\udcff\0", r"'a\nb\udcff\x00'"),
    ],
)
def test_a_value_is_shown_in_one_short_line(value, text):
    assert shown(value) == text
    assert len(shown(value)) <= 60


def test_a_value_whose_representation_fails_is_shown_by_its_type():
    class Rude:
        def __repr__(self):
            raise RuntimeError

    assert shown(Rude()) == "a Rude"


@pytest.mark.parametrize("text", ["", " ", "ü", "\U0001f600", "a\nb", pytest.param("x" * 4096, id="long")])
def test_texts_that_can_be_written_are_normal(text):
    assert normal_text(text) == text


@pytest.mark.parametrize(
    ("text", "reason"), [("\0", "NUL"), ("\ud800", "not UTF-8"), pytest.param("x" * 4097, "4,097 characters", id="long")]
)
def test_other_texts_are_not(text, reason):
    with pytest.raises(ValueError, match=reason):
        normal_text(text)
    with pytest.raises(ValueError, match=reason):
        normal_path(text)


def test_a_path_keeps_its_tilde(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    assert normal_path("~/x") == Path("~/x")
    with pytest.raises(ValueError, match="home of a user who is not known"):
        normal_path("~nobody-here/x")
    with pytest.raises(ValueError, match="more than 255 bytes"):
        normal_path("a/" + "ü" * 128)


def test_digits_of_other_scripts_are_no_ordinary_ones():
    assert ordinary_digits(" -1_000e3 ")
    assert not ordinary_digits("٣")
    assert not ordinary_digits("9" * 5000)
