"""The first tries of every campaign, and the counting itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import abuse
import campaign
import pytest


def tries(random: Random) -> Iterator[campaign.Try]:
    def broken(folder: Path) -> None:
        raise AssertionError(f"{random.randrange(100)} is not what was promised")

    yield campaign.Try("nothing", lambda folder: None)
    yield campaign.Try("a number", broken)
    yield campaign.Try("for ever", lambda folder: time.sleep(60))


@pytest.mark.parametrize("name", [name for name in abuse.CAMPAIGNS if abuse.load(name).in_suite])
def test_the_promise_holds(name):
    chosen = abuse.load(name)
    assert not chosen.run(seed=0, count=chosen.in_suite).broken


def test_what_breaks_the_promise_or_takes_too_long_is_counted_and_named():
    found = campaign.Campaign("nothing happens", tries, count=3, in_suite=1, limit=0.1).run(seed=0)
    assert found.tries == 3
    assert list(found.broken) == ["2: a number", "3: for ever"]
    assert "not done after 0 s" in found.broken["3: for ever"]
    assert found.broken["2: a number"].startswith(f"AssertionError: {Random(0).randrange(100)} is not what was promised")


def test_a_campaign_that_cannot_be_tried_here_says_why(monkeypatch, capsys):
    monkeypatch.setattr(abuse, "CAMPAIGNS", ("one",))
    found = campaign.Campaign("nothing happens", tries, count=3, in_suite=0, missing=lambda: "there is no air")
    monkeypatch.setattr(abuse, "load", lambda name: found)
    assert abuse.main([]) == 0
    assert capsys.readouterr().out == "one: not tried: there is no air\n"


def test_the_command_prints_counts_and_fails_if_one_broke(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(abuse, "CAMPAIGNS", ("one",))
    monkeypatch.setattr(abuse, "load", lambda name: campaign.Campaign("nothing happens", tries, count=2, in_suite=1))
    assert abuse.main(["one", "--json", str(tmp_path / "found.json")]) == 1
    printed = capsys.readouterr().out
    assert "one: 1 of 2 held" in printed
    assert "2: a number" in printed
    assert '"tries": 2' in (tmp_path / "found.json").read_text()
    assert abuse.main(["--count", "1"]) == 0
