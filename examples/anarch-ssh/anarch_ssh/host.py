"""What runs on a machine: ``python -m anarch_ssh.host``. Messages are pickles on standard input and output.

First it tells its versions; then it is told what is run, on which data; then job after job: the job, the pieces of its files, None.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import sys
import threading
from typing import Any

from anarch_core.workers import Outpost, Stop, versions

READY, STOP = "ready", "stop"


def main() -> None:
    """Train what comes until nobody is there any more to tell."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else prints

    def tell(message: object) -> None:
        pickle.dump(message, out, protocol=5)
        out.flush()

    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with contextlib.ExitStack() as block:
        stop = Stop(insist=False)
        threading.Thread(target=_listen, args=(inbox, stop, threading.get_ident(), block), daemon=True).start()
        tell(versions())
        config, data = inbox.get()
        outpost = Outpost(config, lambda: data, stop)
        block.callback(outpost.close)
        tell(READY)
        while True:
            job = inbox.get()
            desk = outpost.expect(job)
            while (piece := inbox.get()) is not None:
                desk.take(piece)
            tell(outpost.run(job, tell))


def _listen(inbox: queue.SimpleQueue[Any], stop: Stop, trains: int, block: contextlib.ExitStack) -> None:
    """Take what comes; at its end leave nothing behind."""
    try:
        while True:
            message = pickle.load(sys.stdin.buffer)
            if message == STOP:
                stop.ask_in(trains)
            else:
                inbox.put(message)
    except Exception:
        block.close()
        os._exit(0)


if __name__ == "__main__":
    main()
