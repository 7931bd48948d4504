"""Asks a run for more, and kills it while it makes that, wherever it writes."""

from __future__ import annotations

import functools
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from campaign import Campaign, Try
from forked import WORKERS, Forked
from kills import KILLING, STAGES
from whole_run import command, finish, signals

MORE = ("--relax", "lcn", "--switch", "at:0,2,3,27it", "--probe", "weights")


@functools.cache
def first() -> Path:
    """The run before it is asked for more; nobody writes to it."""
    folder = Path(tempfile.mkdtemp(dir=signals().parent))
    with Forked(*command(1), folder=folder) as process:
        process.ended().done()
    return folder / "run"


def kill(folder: Path, places: Sequence[tuple[str, int]], *, jobs: int, again: bool) -> None:
    """Kill the extension, each time at another place, and then let it go on; in the end with ``resume``, or ``again`` with the command."""
    shutil.copytree(first(), folder / "run")
    for stage, times in places:
        patch = f"stage, times = {stage!r}, {times}\n{KILLING}" + (WORKERS if jobs > 1 else "")
        with Forked(*command(jobs, *MORE), folder=folder, patch=patch) as process:
            ended = process.ended()
        assert ended.code in (0, -signal.SIGKILL), f"exit code {ended.code}: {ended.err}"
    if not again:
        with Forked("resume", "run", folder=folder) as process:  # of what it was asked last, whichever that was
            process.ended().done()
    finish(folder, *MORE, resume=False)


def tries(random: Random) -> Iterator[Try]:
    """Kills by the dozen."""
    while True:
        places = [(random.choice(STAGES), random.randrange(40)) for _ in range(random.randrange(1, 4))]
        jobs, again = random.choice((1, 1, 2)), random.random() < 0.5
        words = ", then ".join(f"at {stage} {times}" for stage, times in places)
        name = f"killed {words}, {jobs} jobs{', same command' if again else ''}"
        yield Try(name, lambda folder, places=places, jobs=jobs, again=again: kill(folder, places, jobs=jobs, again=again))


CAMPAIGN = Campaign(
    promise="a run that is asked for more and killed meanwhile comes to the bytes of one that was asked for all at once",
    tries=tries,
    count=60,
    in_suite=0,
    limit=120,
)
