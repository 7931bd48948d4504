"""A worker process: reads the run's configuration from the run directory, loads the data once, trains one segment after the other.

It ends when its parent ends, however that happens. :mod:`anarch_core.running.workers` starts it as
``python -m anarch_core.running.worker HANDLE DIR MODEL``.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from anarch_core.config.resolution import resolve
from anarch_core.experiment.context import RunContext
from anarch_core.experiment.store import RunStore
from anarch_core.plugin.registry import get_registry
from anarch_core.running.workers import STOP, run_job

if TYPE_CHECKING:
    from anarch_core.experiment.events import Job


def main(handle: int, out: Path, model: str) -> None:
    """A worker process: train what comes down the line until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides and says "stop"
    connection = Connection(handle)
    jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
    stopped = threading.Event()

    def listen() -> None:
        while True:
            try:
                message = connection.recv()
            except (EOFError, OSError):
                os._exit(1)  # the parent is gone: nobody may go on writing into its run directory
            if message == STOP:
                stopped.set()
            else:
                jobs.put(message)

    threading.Thread(target=listen, daemon=True).start()
    store, registry = RunStore(out), get_registry()
    config = resolve({"model": model}, [store.config_file], registry=registry)
    torch.set_num_threads(config.threads or 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the parent opens the same data and tells
        context = RunContext.open(config, store, registry)
    while True:
        connection.send(run_job(context, jobs.get(), connection.send, stopped.is_set))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
