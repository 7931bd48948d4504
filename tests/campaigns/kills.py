"""Kills runs where it hurts: in the midst of writing a file, before and after it takes its place, with a lock or a folder just made."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from campaign import Campaign, Try
from forked import WORKERS, Forked
from whole_run import command, finish

STAGES = ("half", "whole", "placed", "folder", "lock", "appended")

KILLING = """
import fcntl, os, signal
left = [times]

def now(on):
    left[0] -= on == stage or stage in ("half", "whole") and on == "writing"
    return left[0] < 0

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def replace(source, target, found=os.replace):
    if now("writing"):
        if stage == "half":
            os.truncate(source, os.stat(source).st_size // 2)
        die()
    found(source, target)
    if now("placed"):
        die()

def mkdir(path, *arguments, found=os.mkdir, **named):
    found(path, *arguments, **named)
    if now("folder"):
        die()

def flock(file, how, found=fcntl.flock):
    found(file, how)
    if now("lock"):
        die()

def append(self, row):
    self._file.write(b'{"epoch": 1, "train_l')
    self._file.flush()
    die() if now("appended") else self._file.truncate(self._file.tell() - 21)
    appended(self, row)

os.replace, os.mkdir, fcntl.flock = replace, mkdir, flock
from anarch_core.experiment import store
appended = store.History.append
store.History.append = append
"""
"""Kills the process at the n-th file, folder, lock or row of a history."""


def kill(folder: Path, places: Sequence[tuple[str, int]], *, resume: bool) -> None:
    """Kill the command, each time at another place, and then let it go on."""
    for stage, times in places:
        with Forked(*command(1), folder=folder, patch=f"stage, times = {stage!r}, {times}\n{KILLING}") as process:
            ended = process.ended()
        assert ended.code in (0, -signal.SIGKILL), f"exit code {ended.code}: {ended.err}"
    finish(folder, resume=resume)


def shoot(folder: Path, waits: Sequence[float], *, target: str, resume: bool) -> None:
    """Kill the process that leads two workers, or all of them, after so many seconds."""
    for wait in waits:
        with Forked(*command(2), folder=folder, patch=WORKERS) as process:
            time.sleep(wait)
            process.send(signal.SIGKILL, target)
            ended = process.ended()
        assert ended.code in (0, -signal.SIGKILL), f"exit code {ended.code}: {ended.err}"
    finish(folder, resume=resume)


def tries(random: Random) -> Iterator[Try]:
    """The preparation, then any place."""
    for stage in STAGES[:5]:
        for times in range(4):
            yield at([(stage, times)], resume=random.random() < 0.5)
    while True:
        resume = random.random() < 0.5
        if random.random() < 0.3:
            waits, target = [random.random() * 2 for _ in range(random.randrange(1, 3))], random.choice(("parent", "group"))
            words = f"SIGKILL to the {target} after {', '.join(f'{wait:.2f} s' for wait in waits)}"
            yield Try(words, lambda folder, waits=waits, target=target, resume=resume: shoot(folder, waits, target=target, resume=resume))
        else:
            yield at([(random.choice(STAGES), random.randrange(30)) for _ in range(random.randrange(1, 4))], resume=resume)


def at(places: Sequence[tuple[str, int]], *, resume: bool) -> Try:
    """A try and its name."""
    words = ", then ".join(f"at {stage} {times}" for stage, times in places)
    return Try(f"killed {words}{'' if resume else ', same command'}", lambda folder: kill(folder, places, resume=resume))


CAMPAIGN = Campaign(
    promise="a run that is killed, wherever it writes, goes on to the same bytes",
    tries=tries,
    count=80,
    in_suite=1,
    limit=90,
)
