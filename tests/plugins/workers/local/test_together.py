"""Several processes train one segment together: the run is the one of a single process, whatever happens to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from safetensors.torch import save_file

from anarch_core import Results, resume, run
from anarch_core.checkpoint.state import load_state
from anarch_core.config.run_config import RunConfig
from anarch_core.errors import ConfigError
from anarch_core.observer import AbstractObserver, EpochDone, Event
from anarch_core.plugin.registry import get_registry
from anarch_core.report.catalogue import figures
from anarch_core.segment.stopping import InterruptedRunError

Small = Callable[..., RunConfig]


@pytest.fixture(scope="module", autouse=True)
def one_figure_in_reports() -> Iterator[None]:
    """Drawing all of them takes longer than the runs that they show."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("anarch_core.report.writer.figures", lambda: figures()[:1])
        yield


SETTINGS = {"precision": "float64", "probe": "delta,hessian,gradient,ablation", "control": "continued,scratch"}


def numbers(results: Results) -> dict[str, Any]:
    """What was found of each segment, by its title."""
    return {
        segment.id: {
            "final": dict(segment.final),
            "history": [dict(row) for row in segment.history],
            "probes": {name: {moment: dict(found) for moment, found in moments.items()} for name, moments in segment.probes.items()},
        }
        for segment in results.segments
    }


def networks(out: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The weights of every network on disk."""
    files = [*out.glob("segments/*/final.safetensors"), *out.glob("segments/*/snapshots/*.safetensors")]
    return {str(file.relative_to(out)): load_state(file)[0] for file in files}


def assert_alike(one: Path, other: Path) -> None:
    """The networks are equal to rounding."""
    found, expected = networks(other), networks(one)
    assert found.keys() == expected.keys()
    for name, tensors in expected.items():
        for key, tensor in tensors.items():
            torch.testing.assert_close(found[name][key], tensor, rtol=1e-12, atol=1e-13, msg=f"{name}: {key}")


def close(found: Any, expected: Any) -> None:
    """Nested tables of numbers are equal to rounding."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            close(found[key], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            close(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-11)
    else:
        assert found == expected


def bytes_of(out: Path) -> dict[str, bytes]:
    """The final networks and the histories."""
    files = [*out.glob("segments/*/final.safetensors"), *out.glob("segments/*/history.jsonl")]
    return {str(file.relative_to(out)): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def whole(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The run in one process."""
    return run(small(**SETTINGS), out=tmp_path_factory.mktemp("whole") / "run", progress="silent")


@pytest.fixture(scope="module")
def shared(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The run in two processes that train together."""
    return run(small(**SETTINGS, shards=2), out=tmp_path_factory.mktemp("shared") / "run", progress="silent")


@pytest.mark.slow
def test_numbers_and_networks_are_those_of_one_process(whole: Results, shared: Results) -> None:
    assert not shared.failed
    close(numbers(shared), numbers(whole))
    assert_alike(whole.path, shared.path)


@pytest.mark.slow
def test_a_run_directory_holds_nothing_else(whole: Results, shared: Results) -> None:
    def names(out: Path) -> set[str]:
        return {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}

    assert names(shared.path) == names(whole.path)


@pytest.mark.slow
def test_the_record_says_how_many_trained_together(shared: Results) -> None:
    assert {machine.shards for segment in shared.segments for machine in segment.machines} == {2}


@pytest.mark.slow
def test_it_grows_in_another_number_of_processes(small: Small, shared: Results) -> None:
    grown = run(small(**{**SETTINGS, "switch": "at:0,1,2"}, shards=3), out=shared.path, progress="silent")
    assert not grown.failed
    assert len(grown.segments) > len(shared.segments)


class After(AbstractObserver):
    """Does something once, after an epoch of the relaxed network."""

    def __init__(self, epoch: int, do: Callable[[], None]) -> None:
        super().__init__(None)
        self.epoch, self.do = epoch, do

    def observe(self, event: Event) -> None:
        if isinstance(event, EpochDone) and event.segment.relaxation and event.epoch >= self.epoch and not event.earlier:
            do, self.do = self.do, lambda: None
            do()


def others() -> list[int]:
    """The worker processes of this one, in the order in which they were started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
            command = (entry.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == os.getpid() and b"local.worker" in command:
            found.append(int(entry.parent.name))
    return sorted(found)


LONG = {"shards": 2, "control": "none", "switch": "at:0", "branch_epochs": 40, "epochs": 1, "optimizer": "adam"}
"""One branch, long enough for something to happen to it."""


@pytest.fixture(scope="module")
def left_alone(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to whose processes nothing happens."""
    return run(small(**LONG), out=tmp_path_factory.mktemp("alone") / "run", progress="silent").path


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1])
def test_one_that_is_killed_ends_all_and_the_segment_goes_on(small: Small, tmp_path: Path, left_alone: Path, which: int) -> None:
    killed: list[list[int]] = []

    def kill() -> None:
        killed.append(others())
        os.kill(killed[0][which], signal.SIGKILL)

    run(small(**LONG), out=tmp_path / "killed", progress="silent", observers=[After(3, kill)])
    assert len(killed[0]) == 2
    assert not set(killed[0]) & set(others())
    assert bytes_of(tmp_path / "killed") == bytes_of(left_alone)


@pytest.mark.slow
@pytest.mark.parametrize("shards", [1, 3])
def test_it_is_resumed_by_another_number_of_processes(small: Small, tmp_path: Path, shards: int) -> None:
    config = small(**LONG, precision="float64")
    stopped = After(3, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(InterruptedRunError):
        run(config, out=tmp_path / "stopped", progress="silent", observers=[stopped])
    assert list((tmp_path / "stopped").glob("segments/*/resume.safetensors"))
    assert others() == []
    resumed = resume(tmp_path / "stopped", shards=shards, progress="silent")
    whole = run(attrs.evolve(config, shards=1), out=tmp_path / "whole", progress="silent")
    close(numbers(resumed), numbers(whole))
    assert_alike(tmp_path / "whole", tmp_path / "stopped")


def test_what_only_this_process_knows_is_not_trained_together(small: Small, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="known to this one alone"):
        run(small(shards=2), out=tmp_path / "run", progress="silent", registry=get_registry())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"penalty": "parts:0.1"}, "penalty needs the whole of each relaxed layer, of which each of 2 processes has a part"),
        ({"shards": 0}, "shards: expected a whole number from 1 to 1,024, got 0"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(small: Small, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        small(**{"shards": 2, **settings})
    assert said in str(caught.value)


LIMITED = """
import re, resource, sys
import torch
from anarch_core import run
from anarch_core.running import walk  # and with it all that a process has imported when it trains
from anarch_core.experiment import context

torch.set_num_threads(1)
torch.zeros(64, 64) @ torch.zeros(64, 64)
held = 1024 * int(re.search(r"VmData:\\s+(\\d+)", open("/proc/self/status").read())[1])
resource.setrlimit(resource.RLIMIT_DATA, (held + 900 * 2**20,) * 2)
data, out, shards = sys.argv[1:]
settings = dict(relax="efcn", epochs=1, branch_epochs=2, switch="at:0", batch_size=20, control="none", device="cpu", jobs=1, threads=1)
try:
    run(data=f"tensors:{data}", model="cnn1d", probe="delta", shards=int(shards), out=out, progress="silent", **settings)
except MemoryError as error:
    print(error)
"""
"""A run in processes each of which may take 900 MB more than the first has, with everything imported."""


@pytest.mark.slow
def test_what_does_not_fit_into_one_process_is_trained_by_two(tmp_path: Path) -> None:
    generator, y = torch.Generator().manual_seed(0), torch.arange(60) % 3
    x = torch.randn(60, 1, 1024, generator=generator)
    data, out = tmp_path / "long.safetensors", tmp_path / "run"
    save_file({"x": x[:40].clone(), "y": y[:40].clone(), "x_test": x[40:].clone(), "y_test": y[40:].clone()}, data)

    def tried(shards: int) -> str:
        command = [sys.executable, "-c", LIMITED, str(data), str(out), str(shards)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    assert "needs 1.0 GB, but cpu has" in tried(1)
    assert tried(2) == ""
    results = Results.read(out)
    assert not results.failed
    assert [segment.parameters for segment in results.segments if segment.relaxation] == [115_539_203]
