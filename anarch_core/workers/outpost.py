"""Where segments are trained without the run directory: what they start from is brought here, what they leave is sent home.

Only whoever asks for the run writes into its directory: no file system has to be shared, and nobody who was given up by mistake does harm.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from anarch_core.cards import resolve_device
from anarch_core.config.run_config import RunConfig
from anarch_core.experiment.events import Event
from anarch_core.experiment.store import RunStore
from anarch_core.files.scratch import scratch
from anarch_core.segment.stopping import Stop
from anarch_core.workers.base import Outcome
from anarch_core.workers.courier import Desk, Piece, names, pieces
from anarch_core.workers.training import open_context, run_job

if TYPE_CHECKING:
    from anarch_core.data.tensor_data import TensorData
    from anarch_core.experiment.events import Job

POSTED_AT = ("started", "snapshot", "saved")
"""Events before which files go home: the segment may have been cleared; children start from a snapshot; a state counts once it is there."""


class Outpost:
    """Trains one segment after the other in a folder of its own, with data that were brought there.

    Args:
        config: the run, complete.
        source: gives the data set, its inputs in the host's memory.
        stop: whether the run was asked to stop.

    Raises:
        AnarchError: the device is not here, or the data or a component cannot be had.
        Stopped: it was asked to stop.
    """

    def __init__(self, config: RunConfig, source: Callable[[], TensorData], stop: Stop) -> None:
        self._stop = stop
        with contextlib.ExitStack() as block:
            self._store = RunStore(block.enter_context(scratch("anarch-outpost")))
            self._context = open_context(attrs.evolve(config, device=resolve_device(config.device)), self._store, stop, source)
            self._block = block.pop_all()

    def expect(self, job: Job) -> Desk:
        """Clear away what is here of the job before; the desk is for what :func:`~anarch_core.workers.courier.brought` gives."""
        shutil.rmtree(self._store.path / "segments", ignore_errors=True)
        return Desk(self._store, job.involved)

    def run(self, job: Job, send: Callable[[Event | Piece], None]) -> Outcome:
        """Train a segment whose files are there.

        Args:
            job: the segment.
            send: takes what happens, and what is to be written at home, in the order in which it is to be; it may wait. A state that was
                saved is sent while the time that this takes is counted, so that large ones are saved more rarely.

        Returns:
            how it ended; the files are home by then.
        """
        import torch

        torch.set_num_threads(self._context.config.threads or 1)  # of this thread: others keep theirs
        post = _Post(self._store, job.segment.id, send)

        def emit(event: Event) -> None:
            if event.kind in POSTED_AT:
                post()
            send(event)

        outcome = run_job(self._context, job, emit, self._stop)
        post()
        return outcome

    def close(self) -> None:
        """Remove the folder."""
        self._block.close()


class _Post:
    """Sends home what has changed of a segment's files.

    In an order in which those at home mean something whenever the line breaks: what a state counts on before the state, what a result names
    before the result, and what is gone after the result that does without it; but first of all a result that holds no longer.
    """

    def __init__(self, store: RunStore, segment: str, send: Callable[[Event | Piece], None]) -> None:
        self._store, self._segment, self._send = store, segment, send
        self._files = store.segment(segment)
        self._at_home = self._found()

    def __call__(self) -> None:
        found = self._found()
        gone = [name for name in self._at_home if name not in found]
        result = self._files.result_file.name
        if result in gone:
            gone.remove(result)
            self._gone(result)
        for name in sorted((name for name in found if self._at_home.get(name) != found[name]), key=self._rank):
            for piece in pieces(self._store, self._segment, name):
                self._send(piece)
            self._at_home[name] = found[name]
        for name in gone:
            self._gone(name)

    def _gone(self, name: str) -> None:
        self._send(Piece(segment=self._segment, name=name))
        del self._at_home[name]

    def _rank(self, name: str) -> tuple[int, str]:
        """Where in the order a file comes."""
        order = {self._files.history_file.name: 0, self._files.resume_file.name: 2, self._files.result_file.name: 3}
        return order.get(name.rpartition("/")[2], 1), name

    def _found(self) -> dict[str, tuple[int, int, int]]:
        """What there is, each with what changes when it is written."""
        found = {name: (self._files.path / name).stat() for name in names(self._files)}
        return {name: (status.st_mtime_ns, status.st_size, status.st_ino) for name, status in found.items()}
