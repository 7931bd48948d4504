"""A worker process: is told what is run, loads the data once, trains one segment after the other.

It ends when its parent ends, however that happens. A signal stops its job, whose state is saved, and the parent then stops the run; a
worker without a job just ends. Where several processes train a segment together, each is a worker: the first heeds signals and tells what
happens, and the others follow it. :mod:`anarch_plugins.workers.local.process` starts it as
``python -m anarch_plugins.workers.local.worker HANDLE DIR``.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from anarch_core.errors import Stopped
from anarch_core.workers import SIGNALS, Outcome, RunStore, Stop, open_context, run_job

if TYPE_CHECKING:
    from anarch_core.config import RunConfig
    from anarch_core.workers import Event, Job

STOP = "stop"
"""What a worker process is told when it has to save its state and end its job."""

TOLD = signal.SIGUSR1
"""Wakes the main thread when the parent says stop."""


@attrs.frozen(kw_only=True)
class Member:
    """One of several processes that train a segment together.

    Attributes:
        rank: its number; the first is 0.
        size: how many there are.
        meeting: path of the file by which they find each other.
    """

    rank: int = 0
    size: int = 1
    meeting: str = ""

    @property
    def leads(self) -> bool:
        """Whether it is the first, or alone."""
        return self.rank == 0


def main(handle: int, out: Path) -> None:
    """A worker process: train what comes down the line until it is closed."""
    connection = Connection(handle)
    try:
        config: RunConfig = connection.recv()
        member: Member = connection.recv()
    except (EOFError, OSError):
        return  # the parent is gone
    jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
    stop = Stop(insist=False)
    heeded = (*SIGNALS, TOLD)
    with stop.on_signals(heeded) if member.leads else contextlib.nullcontext(), contextlib.ExitStack() as together:
        if not member.leads:  # what signals ask for is the first one's to decide
            for number in heeded:
                signal.signal(number, signal.SIG_IGN)
        threading.Thread(target=_listen, args=(connection, jobs), daemon=True).start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, heeded)
        job = jobs.get()  # the first is on its way; a signal meanwhile stops it when it is there
        try:
            context = open_context(config, RunStore(out, writes=member.leads), stop)
            if member.size > 1:
                from anarch_core.workers import joined  # and with it PyTorch, which may be broken

                shards = together.enter_context(joined(member.rank, member.size, member.meeting, config.device))
                context = attrs.evolve(context, shards=shards)
        except Stopped:
            connection.send(Outcome(segment=job.segment.id))
            return
        except BaseException as error:  # whatever it is, the parent tells it: nobody else will
            connection.send(Outcome.failed(job.segment.id, error))
            return
        tell: Callable[[Event], None] = connection.send if member.leads else _nothing
        try:
            while True:
                connection.send(run_job(context, job, tell, stop))
                with stop.at_once():
                    job = jobs.get()
        except Stopped:
            return


def _nothing(event: Event) -> None:
    """The first of the processes tells what happens."""


def _listen(connection: Connection, jobs: queue.SimpleQueue[Job]) -> None:
    """Take what the parent says."""
    while True:
        try:
            message = connection.recv()
        except (EOFError, OSError):
            os._exit(1)  # the parent is gone: nobody may go on writing into its run directory
        if message == STOP:
            signal.pthread_kill(threading.main_thread().ident or 0, TOLD)
        else:
            jobs.put(message)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
