"""Lets worker processes die: at any moment, with or without a job, once or for ever, or before they can begin."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from campaign import Campaign, Try
from forked import WORKERS, Forked
from stops import TELLING
from whole_run import command, finish

WAYS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT)


def shot(folder: Path, *, times: int, wait: float, number: signal.Signals, deaths: int) -> None:
    """One worker or two die when the run has told of so much, and a bit later; the run ends as if they had not."""
    with Forked(*command(2), folder=folder, patch=TELLING + WORKERS) as process:
        heard = 0
        for _ in range(deaths):
            while heard < times and process.hear() is not None:
                heard += 1
            time.sleep(wait)
            times += times
            for worker in process.workers()[-1:]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker, number)
        ended = process.ended(80).done()
    assert "failed" not in ended.err + ended.out, ended.err
    finish(folder)


def always(folder: Path, number: signal.Signals) -> None:
    """Every worker dies as soon as it has a job: the run gives up, and says of what they died."""
    with Forked(*command(2), folder=folder, patch=TELLING + WORKERS) as process:
        while process.alive():
            for worker in process.workers():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker, number)
            time.sleep(0.05)
        ended = process.ended(80)
    assert ended.code == 1, f"exit code {ended.code}: {ended.err}"
    word = "was killed" if number is signal.SIGKILL else f"died of {number.name}"
    assert f"failed: its process {word}" in ended.err, ended.err
    finish(folder)


def unable(folder: Path, breaking: Callable[[Path], None], reason: str) -> None:
    """Workers cannot begin; the run says why, and leaves the trace."""
    broken = folder / "broken"
    broken.mkdir()
    breaking(broken)
    patch = f"import os; os.environ['PYTHONPATH'] = {os.pathsep.join(filter(None, [str(broken), os.environ.get('PYTHONPATH')]))!r}"
    with Forked(*command(2), folder=folder, patch=patch) as process:
        ended = process.ended(80)
    assert ended.code == 1, f"exit code {ended.code}: {ended.err}"
    assert reason in ended.out, ended.out
    failed = json.loads((folder / "run" / "results.json").read_text())["failed"]
    assert all(reason in segment["error"] for segment in failed.values()), failed
    finish(folder)


def shadows(module: str, text: str) -> Callable[[Path], None]:
    """Puts a module of that name before the real one."""
    return lambda folder: (folder / f"{module}.py").write_text(text) and None  # type: ignore[func-returns-value]


def tries(random: Random) -> Iterator[Try]:
    """The plain cases, then any moment."""
    yield Try.of(shot, times=8, wait=0.0, number=signal.SIGKILL, deaths=1)
    yield Try("a worker leaves at once", lambda folder: unable(folder, shadows("sitecustomize", "import os; os._exit(7)"), "exit code 7"))
    yield Try(
        "a worker cannot import torch", lambda folder: unable(folder, shadows("torch", "raise OSError('no more libraries')"), "no more")
    )
    yield Try(
        "a worker finds no safetensors",
        lambda folder: unable(folder, shadows("safetensors", "raise ImportError('half an installation')"), "half an installation"),
    )
    for number in WAYS:
        yield Try(f"every worker dies of {number.name}", lambda folder, number=number: always(folder, number))
    while True:
        yield Try.of(
            shot,
            times=random.randrange(1, 80),
            wait=random.choice((0.0, random.random())),
            number=random.choice(WAYS),
            deaths=random.choice((1, 1, 2)),
        )


CAMPAIGN = Campaign(
    promise="a worker that dies costs what it had not saved; one that cannot work says why",
    tries=tries,
    count=40,
    in_suite=0,
    limit=120,
)
