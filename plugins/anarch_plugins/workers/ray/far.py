"""What runs on the nodes. Its code travels, and asks what is installed there before it relies on it; anarch is not imported above."""

from __future__ import annotations

import os
import pickle
import platform
import queue
import sys
import threading
from collections.abc import Iterator
from typing import Any

LINE = 2
"""Messages that wait for being taken; whoever trains waits when there are as many, so that sending is part of what saving costs."""


class Worker:
    """An actor that trains one segment after the other."""

    def __init__(self) -> None:
        self._opening = threading.Lock()
        self._outpost: Any = None

    def greet(self, alike: dict[str, str]) -> dict[str, Any]:
        """Who this is: ``node``, ``host``, ``ip``, ``gpus``, and ``problem``, why it cannot work, or None.

        Args:
            alike: versions by name of where the run was begun.
        """
        import ray

        found = ray.get_runtime_context()
        self._gpus = [str(index) for index in ray.get_gpu_ids()]
        if self._gpus:  # not left to Ray alone: on some clusters it was seen not to narrow them
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(self._gpus)
        who = {"node": found.get_node_id(), "host": platform.node(), "ip": ray.util.get_node_ip_address(), "gpus": self._gpus}
        try:
            from anarch_core.workers import differences, versions

            return who | {"problem": differences(alike, versions())}
        except Exception as error:
            return who | {"problem": f"cannot import anarch ({_words(error)}), with {sys.executable}"}

    def open(self, config: bytes, data: list[Any]) -> str | None:
        """Get ready for a run; why that cannot be, in words.

        Args:
            config: the pickled configuration.
            data: a reference to the pickled data set.
        """
        import attrs
        import ray

        from anarch_core.workers import Outpost, Stop

        self._stop, self._trains = Stop(insist=False), 0
        with self._opening:
            try:
                settings = attrs.evolve(pickle.loads(config), device="cuda" if self._gpus else "cpu")
                self._outpost = Outpost(settings, lambda: pickle.loads(ray.get(data[0])), self._stop)
            except Exception as error:
                return f"cannot open the run: {_words(error)}"
        return None

    def expect(self, job: bytes) -> None:
        """Make ready for the files of a job."""
        self._job = pickle.loads(job)
        self._desk = self._outpost.expect(self._job)

    def take(self, piece: bytes) -> None:
        """A piece of such a file."""
        self._desk.take(pickle.loads(piece))

    def run(self) -> Iterator[tuple[str, Any]]:
        """Train: what happens and what is sent home, each pickled, as ``("told", ...)``, and at the end ``("outcome", ...)``.

        Or ``("spoilt", ...)``, the outcome of one who should train nothing more, or ``("error", ...)``, words.
        """
        line: queue.Queue[tuple[str, Any]] = queue.Queue(LINE)

        def train() -> None:
            self._trains = threading.get_ident()
            try:
                ended = self._outpost.run(self._job, lambda message: line.put(("told", array(pickle.dumps(message)))))
                # An error of CUDA may leave a process unable to use its card.
                line.put(("spoilt" if ended.error and self._gpus else "outcome", array(pickle.dumps(ended))))
            except BaseException as error:
                line.put(("error", array(_words(error).encode())))

        threading.Thread(target=train, daemon=True).start()
        kind = "told"
        while kind == "told":
            kind, message = line.get()
            yield kind, message

    def stop(self) -> None:
        """Have the state saved, and the job end."""
        self._stop.ask_in(self._trains)

    def end(self) -> None:
        """Leave nothing behind."""
        with self._opening:
            if self._outpost is not None:
                self._outpost.close()
            os._exit(0)


def _words(error: BaseException) -> str:
    from_anarch = any(base.__name__ == "AnarchError" for base in type(error).__mro__)
    first = next(iter(str(error).splitlines()), "")
    return first if from_anarch and first else f"{type(error).__name__}: {first}" if first else type(error).__name__


def array(message: bytes) -> Any:
    """Bytes as Ray passes them on without copying them: uint8 [n]."""
    import numpy

    return numpy.frombuffer(message, dtype=numpy.uint8)
