"""Asks runs to stop: by every signal that a batch system, a shell or a user sends, at any moment, once or twice."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

from campaign import Campaign, Try
from command import Ended
from forked import WORKERS, Forked
from whole_run import command, finish

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
TARGETS = ("group", "parent", "worker")
AGAIN = (None, 0.05, 1.2)
"""Seconds to the second signal: none; one that means the same; one that insists."""

TELLING = """
import functools
from anarch_core.experiment import context, results
from anarch_core.planning import preflight
from anarch_core.report import writer
from anarch_core.running import walk

def telling(place, name, what):
    found = getattr(place, name)
    @functools.wraps(found)
    def told(*arguments, **named):
        tell(what(*arguments))
        return found(*arguments, **named)
    setattr(place, name, told)

telling(context, "load_data", lambda *_: "loading")
telling(preflight, "foreseen", lambda *_: "planning")
telling(walk, "prepare", lambda *_: "preparing")
telling(walk.Walk, "heard", lambda run, event: event.kind)
telling(results.Results, "write", lambda *_: "writing")
telling(writer, "write_report", lambda *_: "reporting")
"""
SLOW = """
import time
from anarch_core.probe import measuring
found = measuring._called
def slow(probe, context):
    for _ in range(3000):
        time.sleep(0.01)
    return found(probe, context)
measuring._called = slow
"""
"""A probe that takes half a minute, and tells nothing meanwhile."""


def stop(
    folder: Path,
    *,
    after: str,
    times: int,
    wait: float,
    number: signal.Signals,
    target: str,
    again: float | None,
    jobs: int,
    real: bool = False,
) -> None:
    """Send a signal when the run has told of something for the n-th time, and a bit later; the run must stop, and then go on."""
    with Forked(*command(jobs), folder=folder, patch=TELLING if real else TELLING + WORKERS) as process:
        heard = 0
        while heard < times and (told := process.hear()) is not None:
            heard += told == after or after == "anything"
        time.sleep(wait)
        process.send(number, target)
        if again is not None:
            time.sleep(again)
            process.send(number, target)
        stopped(process.ended(), folder / "run")
    finish(folder)


def stopped(ended: Ended, run: Path) -> None:
    """It said in one sentence that it was stopped, unless it was done by then, and nothing failed.

    Raises:
        AssertionError: it did not.
    """
    assert "Traceback" not in ended.err, ended.err[-400:]
    status, failed = "", {}
    if (run / "results.json").exists():
        results = json.loads((run / "results.json").read_text())
        status, failed = results["status"], results["failed"]
    assert not failed, failed
    assert "failed" not in ended.err + ended.out, ended.err
    if "results: " in ended.out and status == "finished":
        return
    assert ended.code == 130, f"exit code {ended.code}: {ended.err}"
    said = [line for line in ended.err.splitlines() if line.startswith("Interrupted")]
    assert len(said) == 1, f"{len(said)} sentences: {ended.err}"
    assert run.exists() == (run / "config.toml").exists(), f"left {sorted(path.name for path in run.iterdir())}"


def slowly(folder: Path) -> None:
    """SIGTERM while something is measured that takes half a minute."""
    with Forked(*command(1), folder=folder, patch=TELLING + SLOW) as process:
        while (told := process.hear()) is not None and told != "measuring":
            pass
        time.sleep(1)
        process.send(signal.SIGTERM, "group")
        stopped(process.ended(seconds=10), folder / "run")
    finish(folder)


def tries(random: Random) -> Iterator[Try]:
    """The moments that differ, then any."""
    yield Try.of(stop, after="trained", times=20, wait=0.0, number=signal.SIGTERM, target="group", again=None, jobs=2)
    yield Try.of(stop, after="trained", times=20, wait=0.0, number=signal.SIGTERM, target="group", again=None, jobs=1)
    yield Try("SIGTERM while a slow probe measures", slowly)
    for target in ("worker", "group"):
        yield Try.of(stop, after="preparing", times=1, wait=1.0, number=signal.SIGTERM, target=target, again=None, jobs=2, real=True)
        yield Try.of(stop, after="trained", times=5, wait=0.0, number=signal.SIGINT, target=target, again=1.2, jobs=2)
    for _ in range(2):
        for after in ("loading", "planning", "preparing", "writing", "measuring", "snapshot", "reporting"):
            yield Try.of(
                stop,
                after=after,
                times=1,
                wait=0.0,
                number=random.choice(SIGNALS),
                target="parent",
                again=random.choice(AGAIN),
                jobs=1,
            )
    while True:
        jobs = random.choice((1, 2))
        yield Try.of(
            stop,
            after="anything",
            times=random.randrange(1, 150),
            wait=random.choice((0.0, random.random() / 4)),
            number=random.choice(SIGNALS),
            target=random.choice(TARGETS[: jobs + 1]),
            again=random.choice(AGAIN),
            jobs=jobs,
            real=random.random() < 0.1,
        )


CAMPAIGN = Campaign(
    promise="a run that is asked to stop saves its state, says so in a sentence, and goes on later to the same bytes",
    tries=tries,
    count=60,
    in_suite=1,
    limit=90,
)
