"""Processes that torchrun starts know which they are, and whether the run is for them."""

from __future__ import annotations

import pytest

from anarch_core.errors import ConfigError
from anarch_core.sharding.launch import Launch

VARIABLES = {"TORCHELASTIC_RUN_ID": "x", "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch) -> Launch:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    found = Launch.of_this_process()
    assert found is not None
    return found


def test_it_says_what_torchrun_says(launch: Launch) -> None:
    assert launch == Launch(rank=5, size=8, local_rank=1, local_size=4)
    assert launch.device("cuda") == "cuda:1"
    assert launch.device("cpu") == "cpu"
    launch.require(8, "cuda")


@pytest.mark.parametrize("missing", VARIABLES)
def test_a_process_that_was_started_otherwise_is_alone(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(missing)
    assert Launch.of_this_process() is None


@pytest.mark.parametrize(
    ("shards", "device", "said"),
    [
        (2, "cpu", "torchrun started 8 processes, and the run is trained by 2 together; say --shards 8, or let torchrun start 2"),
        (8, "cuda:0", "device 'cuda:0' names cards, and torchrun gives each process the card of its number; say --device cuda"),
    ],
)
def test_another_number_and_named_cards_are_refused(launch: Launch, shards: int, device: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        launch.require(shards, device)
    assert str(caught.value) == said
