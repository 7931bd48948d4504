"""A run that is killed at random moments ends in the same bytes as one that was left alone."""

from __future__ import annotations

import contextlib
import importlib
import os
import random
import sys
from pathlib import Path
from typing import ClassVar

import attrs
import psutil
import pytest
from hypothesis import settings

from anarch_core.config.files import to_toml
from anarch_core.errors import ConfigError, RunError
from anarch_core.experiment.results import Results
from anarch_core.experiment.store import RunStore
from anarch_core.files.locks import locked
from anarch_core.files.replacing import write_text
from anarch_core.running.deaths import TRIES, Deaths
from anarch_core.running.progress import Silent
from anarch_core.running.runner import resume, run

PROGRAM = """
import pathlib
import anarch_core.segment.saving
from anarch_core.running.progress import Silent
from anarch_core.config.resolution import resolve
from anarch_core.running.runner import run

class Telling(Silent):
    def trained(self, segment, iteration, row):
        steps.send(iteration)

anarch_core.segment.saving.SAVE_EVERY = 0.0  # as often as it may, so that kills meet it
run(resolve({}, [pathlib.Path(config)]), out=out, progress=Telling())
"""


def files(path: Path) -> dict[str, bytes]:
    """Every file that holds weights or a history."""
    found = [*path.glob("segments/**/*.safetensors"), *path.glob("segments/*/history.jsonl")]
    return {str(file.relative_to(path)): file.read_bytes() for file in found}


def train_and_kill(forkserver, after: int, config: Path, out: Path) -> None:
    """Train in another process, which is killed once it has told of so many steps, and wait until its workers are gone too."""
    steps, theirs = forkserver.Pipe(duplex=False)
    process = forkserver.Process(target=exec, args=(PROGRAM, {"steps": theirs, "config": str(config), "out": str(out)}))
    process.start()
    theirs.close()
    workers = []
    with contextlib.suppress(EOFError, psutil.NoSuchProcess):  # the run may end at any moment
        for _ in range(after):
            steps.recv()
        parent = psutil.Process(process.pid)
        parent.suspend()  # so that it starts no worker that is not seen
        workers = parent.children()
    process.kill()
    process.join()
    psutil.wait_procs(workers)


@pytest.mark.slow
@pytest.mark.hypothesis
@pytest.mark.parametrize("jobs", [1, 2])
def test_killed_again_and_again(small, forkserver, tmp_path, jobs, pytestconfig):
    config = small(
        jobs=jobs, epochs=12, branch_epochs=8, switch="at:0,3,27it", optimizer_state="carry", augment="crop:2,flip,cutout:3",
        options={"sgd": {"momentum": 0.9}},
    )  # fmt: skip
    draw = random.Random(f"{jobs} {pytestconfig.getoption('--hypothesis-seed')}")
    require_same(config, tmp_path, forkserver, [draw.randrange(1, 40) for _ in range(settings.default.max_examples // 5 // jobs)])


@pytest.mark.slow
@pytest.mark.hypothesis
@pytest.mark.parametrize("column", ["gradient_norm", "gradient.norm"])
def test_a_schedule_that_looks_at_what_is_measured_decides_as_if_nothing_had_happened(small, forkserver, tmp_path, column, pytestconfig):
    config = small(
        epochs=12,
        branch_epochs=1,
        switch=f"when:{column}:rises",
        control="none",
        options={"when": {"times": None}, "sgd": {"momentum": 0.9}},
    )
    draw = random.Random(f"{column} {pytestconfig.getoption('--hypothesis-seed')}")
    expected = require_same(config, tmp_path, forkserver, [draw.randrange(1, 30) for _ in range(settings.default.max_examples // 10)])
    assert [segment.switches for segment in expected.segments if segment.kind == "trunk"] != [[]]


def require_same(config, tmp_path, forkserver, kills) -> Results:
    """Train alone, and killed after so many steps each time; gives what came out."""
    (tmp_path / "config.toml").write_text(to_toml(config))
    expected = run(attrs.evolve(config, jobs=1), out=tmp_path / "left-alone", progress="silent")
    for after in kills:
        train_and_kill(forkserver, after, tmp_path / "config.toml", tmp_path / "killed")
    results = run(config, out=tmp_path / "killed", progress="silent")
    assert results.status == "finished"
    assert files(tmp_path / "killed") == files(tmp_path / "left-alone")
    for found, wanted in zip(Results.read(tmp_path / "killed").segments, expected.segments, strict=True):
        assert attrs.evolve(found, seconds=0) == attrs.evolve(wanted, seconds=0)
    return expected


class Killing(Silent):
    """Kills the process that trains the trunk when it tells of a step, so many times."""

    def __init__(self, times: int) -> None:
        self.times, self.said = times, []

    def trained(self, segment, iteration, row):
        if segment.kind == "trunk" and self.times:
            self.times -= 1
            for child in psutil.Process().children():
                if "anarch_plugins.workers.local.worker" in str(child.cmdline()):
                    child.kill()

    def say(self, text):
        self.said.append(text)


def test_a_worker_that_dies_costs_what_it_had_not_saved(small, tmp_path):
    config = small(jobs=2, epochs=12, relax=(), control="none")
    telling = Killing(times=1)
    results = run(config, out=tmp_path / "run", progress=telling)
    assert results.status == "finished"
    [text] = [text for text in telling.said if "was killed" in text]
    assert text.startswith("trunk, seed 0: its process was killed")
    assert text.endswith("it goes on from where its state was saved")


def test_a_segment_that_is_tried_in_vain_is_given_up(tmp_path):
    store, deaths = RunStore(tmp_path).segment("abc"), Deaths()
    assert [deaths.hopeless(store) for _ in range(TRIES)] == [False, False, True]
    write_text(store.resume_file, "further")
    assert [deaths.hopeless(store) for _ in range(TRIES)] == [False, False, True]


def test_a_worker_that_cannot_begin_says_why(small, tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise OSError('half an installation')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    results = run(small(jobs=2, relax=(), control="none"), out=tmp_path / "run", progress="silent")
    [failure] = results.failed.values()
    assert failure.error.startswith("OSError: half an installation (see ")
    assert 'torch.py", line 1' in next(tmp_path.glob("run/segments/*/error.txt")).read_text()


def test_a_process_left_by_an_earlier_run_is_waited_for_and_named(small, tmp_path, monkeypatch):
    monkeypatch.setattr("anarch_core.segment.waiting.TOLD_AFTER", 0.0)
    config = small(relax=(), control="none")
    run(config, out=tmp_path / "run", progress="silent")
    [folder] = tmp_path.glob("run/segments/*")
    (folder / "result.json").unlink()
    held = contextlib.ExitStack()
    held.enter_context(locked(folder / ".lock", wait=False))

    class Releasing(Silent):
        said: ClassVar[list[str]] = []

        def say(self, text):
            self.said.append(text)
            if "waits" in text:
                held.close()

    assert run(config, out=tmp_path / "run", progress=Releasing()).status == "finished"
    assert f"trunk, seed 0 waits for process {os.getpid()}, left by an earlier run" in " ".join(Releasing.said)


def test_a_run_of_the_users_own_factory_goes_on_where_the_user_names_it_again(small, tmp_path, module_of):
    module = module_of(
        "from torch import nn\n"
        "def make(input_shape, classes, width=3):\n"
        "    return nn.Sequential(nn.Conv1d(1, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(width * 14, classes))\n"
    )
    factory, out = f"{module}:make", tmp_path / "out"
    config = small(epochs=1, relax=(), control="none")
    results = run(attrs.evolve(config, model=factory, options={**config.options, factory: {"width": 2}}), out=out, progress="silent")
    with pytest.raises(ConfigError, match=f"the model '{factory}' is a function to import, .* add --model {factory}"):
        resume(out, progress="silent")
    with pytest.raises(RunError, match="differs in model"):
        resume(out, model="os:system", progress="silent")
    assert resume(out, model=factory, progress="silent").segments == results.segments


def test_a_run_on_data_of_the_users_own_factory_goes_on_where_the_user_names_it_again(small, tmp_path, module_of):
    text = (
        "import torch\n"
        "def make(samples=60):\n"
        "    x = SCALE * torch.randn(samples, 1, 16, generator=torch.Generator().manual_seed(0))\n"
        "    return (x, torch.arange(samples) % 3), (x[:30], torch.arange(30) % 3)\n"
    )
    module = module_of(f"SCALE = 1\n{text}")
    factory, out = f"{module}:make", tmp_path / "out"
    config = small(epochs=1, relax=(), control="none")
    options = {name: table for name, table in config.options.items() if name != "tensors"} | {factory: {"samples": 90}}
    results = run(attrs.evolve(config, data=factory, options=options), out=out, progress="silent")
    assert results.segments[0].iterations_per_epoch == -(-90 // config.batch_size)
    with pytest.raises(ConfigError, match=f"the data '{factory}' is a function to import, .* add --data {factory}"):
        resume(out, progress="silent")
    with pytest.raises(RunError, match="differs in data"):
        resume(out, data="os:system", progress="silent")
    assert resume(out, data=factory, progress="silent").segments == results.segments
    (tmp_path / f"{module}.py").write_text(f"SCALE = 2\n{text}")
    sys.modules.pop(module)
    importlib.invalidate_caches()
    with pytest.raises(RunError, match=r"is not the one that .* began with"):
        resume(out, data=factory, progress="silent")
