"""A process between a run and Ray, started by :class:`anarch_plugins.workers.ray.workers.RayWorkers` as ``python -m ... HANDLE``.

Ray writes to the standard output, ends the process that it is used in when its cluster is gone, and reads its environment once: it is used
here, where none of that matters to the run. A Ray for this machine alone is started here, too. When the run's process is gone, however it
went, so is all of this. Signals of a terminal or a batch system do not come here.

Messages are triples: what, of which segment (or None), and the content. They are words, numbers and bytes; nothing of anarch is unpickled.
"""

from __future__ import annotations

import contextlib
import queue
import shutil
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

import ray

from anarch_plugins.workers.ray import far
from anarch_plugins.workers.ray.slot import Slot

LOOK = 0.25
"""Seconds between two looks at whether more workers are to be asked for."""

QUIET = 10.0
"""Seconds without a worker after which it is said what is waited for."""

ENDING = 5.0
"""Seconds for workers to remove what they have on their disks."""

TRIES = 3
"""Workers that may fail to begin, one after the other, before that is said."""


class Broker:
    """Gets workers, and passes on what goes to and fro.

    Args:
        connection: to the run's process.

    Attributes:
        asked: the settings, see :func:`main`.
        jobs: those that nobody has begun, as pickled.
        stopping: whether the run was asked to stop.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection, self._sending = connection, threading.Lock()
        self._lock = threading.RLock()
        self._slots: list[Slot] = []
        self._refused: dict[str, str] = {}
        self._failures, self._not_before, self._submitted = 0, 0.0, 0
        self.jobs: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
        self.stopping = False
        self.asked: dict[str, Any] = {}

    def tell(self, what: str, segment: str | None, content: Any) -> None:
        """Tell the run's process."""
        with self._sending:
            self._connection.send((what, segment, content))

    def work(self) -> None:
        """Work until the run's process closes the line."""
        self.asked = self._connection.recv()
        folder = self.asked["folder"]
        place = {"num_cpus": self.asked["cpus"], "include_dashboard": False, "_temp_dir": folder} if folder else {}
        try:
            ray.init(address=self.asked["address"], log_to_driver=False, configure_logging=False, **place)
            self._settle()
            self.tell("ready", None, None)
            self.config: bytes = self._connection.recv()
            self.data: list[Any] = [ray.put(far.array(self._connection.recv()))]
            ray.cloudpickle.register_pickle_by_value(far)
            self._actor = ray.remote(max_restarts=0, max_concurrency=2)(far.Worker)
            closed = threading.Event()
            threading.Thread(target=self._listen, args=(closed,), daemon=True).start()
            self._alone_since = time.monotonic()
            with contextlib.suppress(BrokenPipeError, ConnectionError):
                while not closed.wait(LOOK):
                    self._grow()
                    self._say_who_is_missing()
            self._end()
        finally:
            ray.shutdown()
            if folder:
                shutil.rmtree(folder, ignore_errors=True)

    def _settle(self) -> None:
        """What a worker takes of the cluster."""
        there, gpus = ray.cluster_resources(), self.asked["gpus"]
        self._takes = {"num_cpus": self.asked["threads"], "num_gpus": float("GPU" in there) if gpus is None else gpus}
        # With a GPU, networks are in its memory.
        self._takes["memory"] = self.asked["memory"] + (0 if self._takes["num_gpus"] else self.asked["peak"])
        if self.asked["folder"]:
            has = {"num_cpus": there.get("CPU", 0.0), "num_gpus": there.get("GPU", 0.0), "memory": there.get("memory", 0.0)}
            if any(self._takes[name] > has[name] for name in has):
                msg = f"a worker takes {_words(self._takes)}, and Ray has {_words(has)} on this machine"
                raise RefusedError(msg)

    def _listen(self, closed: threading.Event) -> None:
        """Take what the run's process says."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                what, segment, content = self._connection.recv()
                if what == "job":
                    self._submitted += 1
                    self.wait(segment, content)
                elif what == "piece":
                    for slot in list(self._slots):
                        if slot.segment == segment:
                            slot.inbox.put(content)
                elif what == "drop":
                    for slot in list(self._slots):
                        if slot.segment == segment:
                            self.remove(slot)
                elif what == "stop":
                    self._stop()
        closed.set()

    def wait(self, segment: str, job: bytes) -> None:
        """Have a job wait for a worker."""
        with self._lock:
            if self.stopping:
                self.tell("stopped", segment, None)
            else:
                self.jobs.put((segment, job))

    def _stop(self) -> None:
        with self._lock:
            self.stopping = True
            with contextlib.suppress(queue.Empty):
                while True:
                    self.tell("stopped", self.jobs.get_nowait()[0], None)
        for slot in list(self._slots):
            slot.stop()

    def _grow(self) -> None:
        """When all are at work, ask for as many again, up to as many as there may be."""
        if self.stopping or time.monotonic() < self._not_before:
            return
        with self._lock:
            busy = sum(slot.segment is not None for slot in self._slots)
            spare = len(self._slots) - busy - self.jobs.qsize()
            most = min(self.asked["jobs"] or sys.maxsize, max(self.asked["segments"], self._submitted + 1))
            for _ in range(min(max(1, busy) - spare, most - len(self._slots))):
                refused = {"ray.io/node-id": f"!in({','.join(self._refused)})"} if self._refused else None
                self._slots.append(Slot(self, self._actor.options(label_selector=refused, **self._takes).remote()))

    def _say_who_is_missing(self) -> None:
        if any(slot.ready for slot in self._slots) or self.stopping:
            self._alone_since = time.monotonic()
        elif time.monotonic() > self._alone_since + QUIET:
            self._alone_since = float("inf")
            nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
            refused = sum(node in self._refused for node in nodes)
            text = f"nobody trains yet: Ray has {len(nodes)} node{'' if len(nodes) == 1 else 's'}"
            text += f", {refused} of which cannot be used" if refused else ""
            self.tell("say", None, f"{text}; the run waits for one with room for {_words(self._takes)}")

    def refuse(self, slot: Slot, why: str) -> None:
        """Ask for no more workers on the node of one."""
        with self._lock:
            if slot.node not in self._refused:
                self._refused[slot.node] = why
                self._alone_since = time.monotonic()  # there may be nobody else
                if self.asked["folder"]:
                    self.tell("failed", None, f"a worker in Ray {why}")
                else:
                    self.tell("say", None, f"node {slot.name} {why}; nothing is trained there")
        self.remove(slot)

    def failed(self, slot: Slot, why: str) -> None:
        """A worker could not begin."""
        self.remove(slot)
        with self._lock:
            self._failures += 1
            self._not_before = time.monotonic() + 2.0 ** min(self._failures, 6) / 2
            if self._failures == TRIES:
                if self.asked["folder"]:
                    self.tell("failed", None, f"workers in Ray cannot begin: {why}")
                else:
                    self.tell("say", None, f"workers cannot begin: {why}; the run tries on")

    def begun(self) -> None:
        """A worker is ready."""
        with self._lock:
            self._failures, self._not_before = 0, 0.0
            self.tell("capacity", None, sum(slot.ready for slot in self._slots))

    def remove(self, slot: Slot) -> None:
        """A worker is gone, or to be gone."""
        ray.kill(slot.actor)
        with self._lock:
            if slot in self._slots:
                self._slots.remove(slot)
            self.tell("capacity", None, sum(slot.ready for slot in self._slots))

    def _end(self) -> None:
        ends = [slot.actor.end.remote() for slot in self._slots if slot.node]
        if ends:
            ray.wait(ends, num_returns=len(ends), timeout=ENDING)
        for slot in self._slots:
            ray.kill(slot.actor)


class RefusedError(Exception):
    """Nothing can be trained there, for a reason in words."""


def _words(takes: dict[str, float]) -> str:
    """Cores, GPUs and memory."""
    gpus = f"{takes['num_gpus']:g} GPU, " if takes["num_gpus"] else ""
    return f"{takes['num_cpus']:g} core{'' if takes['num_cpus'] == 1 else 's'}, {gpus}{takes['memory'] / 1e9:.1f} GB"


def main(handle: int) -> None:
    """The process: the first message are the settings, the others pickled: the configuration and the data set.

    ``address``, as Ray takes it; ``folder`` for a Ray of its own, None for a cluster, and its ``cpus``, None for all; ``alike``, see
    :func:`anarch_core.workers.versions`; of a worker ``threads``, ``gpus`` (None for one where there are some), bytes of ``memory``, and
    ``peak``, those of networks; ``jobs`` at most, None for as many as there is room for; ``segments`` that are planned.
    """
    broker = Broker(Connection(handle))
    try:
        broker.work()
    except (EOFError, BrokenPipeError):
        return
    except (Exception, SystemExit) as error:
        first = next(iter(str(error).splitlines()), "")
        broker.tell("failed", None, first if isinstance(error, RefusedError) else f"{type(error).__name__}: {first}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
