"""A worker in Ray as the broker sees it: from being asked for, over the segments that it trains, to how it went."""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import Any, Protocol

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError

from anarch_plugins.workers.ray import far

BEHIND = 2
"""Messages of a worker that Ray holds for a broker that is slow to take them."""


class Hirer(Protocol):
    """What a worker's thread needs of who asked for the worker.

    Attributes:
        asked: the settings of the run's process.
        config: of the run, pickled.
        data: a reference to the pickled data set, alone in a list, where Ray does not resolve it.
        jobs: those that nobody has begun, as pickled.
        stopping: whether the run was asked to stop.
    """

    asked: dict[str, Any]
    config: bytes
    data: list[Any]
    jobs: queue.SimpleQueue[tuple[str, bytes]]
    stopping: bool

    def tell(self, what: str, segment: str | None, content: Any) -> None:
        """Tell the run's process."""

    def wait(self, segment: str, job: bytes) -> None:
        """Have a job wait for another worker."""

    def begun(self) -> None:
        """A worker is ready."""

    def refuse(self, slot: Slot, why: str) -> None:
        """A worker cannot work for the run, nor could others on its node."""

    def failed(self, slot: Slot, why: str) -> None:
        """A worker could not begin."""

    def remove(self, slot: Slot) -> None:
        """A worker is gone, or to be gone."""


class Slot:
    """A worker, asked for or there, and the thread that talks with it.

    Args:
        broker: who asked for it.
        actor: the worker; Ray may not have room for it yet.

    Attributes:
        inbox: pieces of files for it, None after the last.
        segment: that it trains.
        ready: whether it has answered, and can work for the run.
        node: where it is, and
        name: how people call that.
    """

    def __init__(self, broker: Hirer, actor: Any) -> None:
        self._broker, self.actor = broker, actor
        self.inbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.segment: str | None = None
        self.ready = self._running = False
        self.node = self.name = ""
        threading.Thread(target=self._work, daemon=True).start()

    def stop(self) -> None:
        """Have its job end."""
        if self._running:
            self.actor.stop.remote()

    def _work(self) -> None:
        with contextlib.suppress(OSError):  # the run's process is gone
            try:
                if problem := self._begin():
                    self._broker.refuse(self, problem)
                    return
                self.ready = True
                self._broker.begun()
                while self._train(*self._broker.jobs.get()):
                    pass
                self._broker.remove(self)
            except (RayError, StopIteration) as error:
                why = _reason(error, self.node, self.name)
                if self.ready:
                    self._broker.remove(self)
                    if self.segment is not None:
                        self._broker.tell("lost", self.segment, why)
                else:
                    self._broker.failed(self, why)

    def _begin(self) -> str | None:
        """Why it cannot work for the run, or None."""
        broker = self._broker
        who = ray.get(self.actor.greet.remote(broker.asked["alike"]))
        twins = sum(node["NodeManagerHostname"] == who["host"] for node in ray.nodes() if node["Alive"]) > 1
        self.node, self.name = who["node"], f"{who['host']} ({who['ip']})" if twins else who["host"]
        self._where = ", ".join([self.name, *(f"GPU {gpu}" for gpu in who["gpus"])])
        problem: str | None = who["problem"] or ray.get(self.actor.open.remote(broker.config, broker.data))
        return problem

    def _train(self, segment: str, job: bytes) -> bool:
        """One job, from bringing its files to its outcome; whether there may be another."""
        broker = self._broker
        try:
            ray.get(self.actor.expect.remote(job))
        except RayActorError:  # gone while it had nothing to do, which is no loss
            broker.wait(segment, job)
            raise
        self.segment = segment
        while True:
            broker.tell("want", segment, None)
            if (piece := self.inbox.get()) is None:
                break
            ray.get(self.actor.take.remote(far.array(piece)))
            if broker.stopping:
                self.segment = None
                broker.tell("stopped", segment, None)
                return False
        broker.tell("placed", segment, self._where)
        stream = self.actor.run.options(num_returns="streaming", _generator_backpressure_num_objects=BEHIND).remote()
        self._running = True
        if broker.stopping:
            self.stop()
        what = "told"
        while what == "told":
            what, message = ray.get(next(stream))
            if what == "told":
                broker.tell(what, segment, bytes(message))
        self._running, self.segment = False, None
        if what == "error":
            broker.tell("error", segment, bytes(message).decode())
        else:
            broker.tell("outcome", segment, bytes(message))
        return bool(what == "outcome")


def _reason(error: BaseException, node: str, name: str) -> str:
    """Why a worker is gone, in words."""
    place = f" on {name}" if name else ""
    if isinstance(error, OutOfMemoryError) or "OUT_OF_MEMORY" in str(error):
        return f"Ray ended its worker{place}, because the machine's memory ran out"
    if isinstance(error, RayTaskError):
        cause = error.cause or error
        return f"its worker{place} failed: {type(cause).__name__}: {str(cause).strip().splitlines()[-1]}"
    if node and not any(known["NodeID"] == node and known["Alive"] for known in ray.nodes()):
        return f"the node {name} is gone"
    if isinstance(error, RayActorError):
        return f"its worker{place} is gone"
    return f"its worker{place} is gone ({type(error).__name__})"
