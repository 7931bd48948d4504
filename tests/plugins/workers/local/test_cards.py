"""A run on two cards, which are pretended: every process sees one of them, and the bytes are those of a single process.

What finds cards is replaced by what gives two, on which PyTorch works as on a processor; all else is as on a machine that has them.
"""

from __future__ import annotations

import contextlib
import json
import os
from multiprocessing import Pipe
from types import SimpleNamespace

import attrs
import psutil
import pytest
import torch

from anarch_core import cards
from anarch_core.planning import plan, sharing
from anarch_core.running import preparation, runner
from anarch_core.running.progress import Silent
from anarch_core.running.runner import run
from anarch_core.workers import Outcome
from anarch_plugins.workers.local import process, workers
from anarch_plugins.workers.local.workers import best_place

GB = 10**9
ENTRIES = ("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f")

NOTING = """
import os
from pathlib import Path
from anarch_core.data import load_data

def data():
    with Path({noted!r}).open("a") as file:
        file.write(f"{{os.getpid()}} {{os.environ.get('CUDA_VISIBLE_DEVICES')}}\\n")
    return load_data({data!r})
"""


def test_the_next_segment_goes_where_the_fewest_are_trained_and_then_where_a_process_has_its_data():
    places = cards.in_turn(cards.chosen("cuda", ["0", "1"]), 2)
    assert best_place(places, busy=[], started=[]) == 0
    assert best_place(places, busy=[0], started=[]) == 1
    assert best_place(places, busy=[0], started=[2]) == 1
    assert best_place(places, busy=[0, 1], started=[3]) == 3
    assert best_place(places, busy=[1, 3], started=[0, 2]) == 0
    assert best_place(places, busy=[0, 1, 2], started=[]) == 3


OUT = "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.69 GiB"


class Answering(process.Process):
    """A process that answers every job at once, with an error if its name says so."""

    made = 0

    def __init__(self, crew, place, member):
        type(self).made += 1
        self.member = member
        self.connection, self.theirs = Pipe()

    def send(self, job):
        self.theirs.send(Outcome(segment=job.segment.id, error=OUT if job.segment.id == "bad" else None))
        return True

    def end(self, *, at_once=False):
        self.connection.close()


@pytest.mark.parametrize(("places", "processes"), [(cards.chosen("cuda", ["0", "1"]), 2), ((cards.Place("cpu", "cpu"),) * 2, 1)])
def test_what_fails_on_a_card_takes_its_process_along(monkeypatch, places, processes):
    monkeypatch.setattr(process, "Process", Answering)
    monkeypatch.setattr(Answering, "made", 0)
    told = []
    trained = workers.Processes()
    trained.open(SimpleNamespace(places=places, on_event=told.append))
    for name in ("good", "bad", "other"):
        trained.submit(SimpleNamespace(segment=SimpleNamespace(id=name)))
        [outcome] = trained.wait()
        where = f"on {places[0].name}: " if processes == 2 else ""  # the process itself calls it GPU 0
        assert outcome == Outcome(segment=name, error=f"{where}{OUT}" if name == "bad" else None)
    assert Answering.made == processes
    assert [(event.kind, event.value) for event in told] == [("placed", "cuda:0")] * (3 if processes == 2 else 0)
    trained.close()


@pytest.fixture
def free():
    """Bytes that are free on each card."""
    return {"cuda:0": 8 * GB, "cuda:1": 8 * GB}


@pytest.fixture
def two_cards(monkeypatch, free):
    found = tuple(attrs.evolve(place, device="cpu") for place in cards.chosen("cuda", ENTRIES))
    for module in (sharing, preparation, runner):
        monkeypatch.setattr(module, "cards", lambda name: found)
    known = sharing.available_bytes
    monkeypatch.setattr(sharing, "available_bytes", lambda device: free.get(str(device)) or known(device))
    monkeypatch.setattr("anarch_core.machine.gpu_name", lambda device: "Pretended 8" if "cuda:" in str(device) else None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")


@pytest.fixture
def noted(module_of, tmp_path, signals):
    """The data set of a run, and what every process that loads it saw of the cards."""
    file = tmp_path / "noted"
    name = module_of(NOTING.format(noted=str(file), data=f"tensors:{signals}"))
    return f"{name}:data", lambda: dict(line.split() for line in file.read_text().splitlines())


class Telling(Silent):
    """Keeps what it is told."""

    def __init__(self):
        self.said, self.where = [], {}

    def say(self, text):
        self.said.append(text)

    def placed(self, segment, where):
        self.where.setdefault(where, set()).add(segment.id)


class Killing(Telling):
    """Kills the process on the second card in the middle of its first segment."""

    killed = False

    def trained(self, segment, iteration, row):
        if self.killed or segment.id not in self.where.get("cuda:1", ()):
            return
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.Error):
                if child.environ().get("CUDA_VISIBLE_DEVICES") == ENTRIES[1]:
                    child.kill()
                    self.killed = True


def files(path):
    return {file.relative_to(path): file.read_bytes() for file in path.glob("segments/*/*.safetensors")}


@pytest.mark.slow
def test_each_process_sees_one_card_and_the_bytes_are_those_of_one_process_also_where_one_is_lost(small, tmp_path, noted, request):
    data, seen = noted
    config = small(data=data, seeds="0,1", probe="delta", relax="efcn,lcn", switch="at:1", epochs=9)
    alone = run(config, out=tmp_path / "alone", progress="silent")
    request.getfixturevalue("two_cards")
    telling = Killing()
    results = run(attrs.evolve(config, jobs=None), out=tmp_path / "shared", progress=telling)
    assert results.status == "finished"
    others = {process: entry for process, entry in seen().items() if int(process) != os.getpid()}
    assert sorted(others.values()) == sorted((*ENTRIES, ENTRIES[1]))  # the lost one was replaced at its place
    assert any("was killed" in text for text in telling.said)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1,0"
    assert set(telling.where) == {"cuda:0", "cuda:1"}
    assert set.union(*telling.where.values()) == {segment.id for segment in results.segments}
    assert files(tmp_path / "shared") == files(tmp_path / "alone")
    assert [one.history for one in results.segments] == [one.history for one in alone.segments]
    assert json.loads((tmp_path / "shared" / "run.json").read_text())["device_name"] == "2 × Pretended 8"
    assert "jobs = 1\n" in (tmp_path / "shared" / "config.toml").read_text()


def test_a_plan_says_which_cards_train_how_many(small, two_cards):
    planned = plan.plan_run(small(jobs=2, seeds="0-4"), timed=False)
    assert planned.at_once == 4
    assert dict(planned.facts())["device"].endswith(" GB free on cuda:0, 4 segments at once on cuda:0, cuda:1, float32")


def test_a_card_that_has_no_room_is_left_out(small, tmp_path, two_cards, free):
    free["cuda:1"] = GB // 8
    telling = Telling()
    config = small(jobs=None, relax=(), control="none", seeds="0,1", epochs=1)
    assert run(config, out=tmp_path / "run", progress=telling).status == "finished"
    assert telling.where == {}  # one place is this process
    [note] = [text for text in telling.said if "left out" in text]
    assert note.startswith("cuda:1 is left out: 125.0 MB are free there, and ")
    assert plan.plan_run(config, timed=False).places == tuple(sharing.cards("cpu")[:1])


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_real_cards_have_a_process_each(small, tmp_path, noted):
    data, seen = noted
    telling = Telling()
    config = small(data=data, device="cuda:1,cuda:0", jobs=2, seeds="0-3", control="none", switch="at:1", epochs=2)
    assert run(config, out=tmp_path / "run", progress=telling).status == "finished"
    assert set(telling.where) == {"cuda:0", "cuda:1"}
    others = [entry for process, entry in seen().items() if int(process) != os.getpid()]
    assert sorted(others) == sorted([place.visible for place in cards.cards("cuda:0,cuda:1")] * 2)
