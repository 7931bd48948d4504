"""Processes that ``torchrun`` starts, on one machine or several, to train one segment after the other together.

The first is the run: it plans, writes, tells and decides, and trains like the others. These wait for what it hands them. All see the run
directory and the data under the same paths.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import attrs

from anarch_core.cards import resolve_device
from anarch_core.config.run_config import RunConfig
from anarch_core.errors import LostProcessError
from anarch_core.experiment.store import RunStore
from anarch_core.segment.stopping import SIGNALS, Stop, handling
from anarch_core.sharding.launch import Launch
from anarch_core.workers.base import Crew, Outcome
from anarch_core.workers.in_process import InProcess
from anarch_core.workers.training import open_context, run_job

if TYPE_CHECKING:
    from anarch_core.sharding.shards import Shards

FOR_WORK = timedelta(days=365)
"""How long a process waits to be given work."""


class Together(InProcess):
    """Trains segments here, the first of several processes, and in the others."""

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self._block = contextlib.ExitStack()

    def open(self, crew: Crew) -> None:
        """Meet the others, and tell them what is run."""
        config = crew.context.config
        shards, self._waiting = self._block.enter_context(_met(config.device))
        self._waiting.agreed((config, str(crew.context.store.path)))
        super().open(attrs.evolve(crew, context=attrs.evolve(crew.context, shards=shards)))

    def wait(self) -> Sequence[Outcome]:
        """Train one segment together with the others, however long that takes.

        Raises:
            LostProcessError: one of them is gone.
        """
        if not self._jobs:
            return []
        self._waiting.agreed(self._jobs[-1])
        ended = super().wait()
        for outcome in ended:
            if outcome.lost:
                msg = f"{outcome.error}; start the run again, it goes on from where its state was saved"
                raise LostProcessError(msg)
        return ended

    def close(self, *, at_once: bool = False) -> None:
        """Let the others end."""
        super().close(at_once=at_once)
        if not at_once and hasattr(self, "_waiting"):
            with contextlib.suppress(LostProcessError):
                self._waiting.agreed(None)
        self._block.close()


def follow(launch: Launch, config: RunConfig) -> NoReturn:
    """Train what the first process hands over, until the run is over; then this process ends.

    Args:
        launch: of this process.
        config: the run, for its device.

    Raises:
        SystemExit: the run is over, or another process is gone.
    """
    heeded = handling(SIGNALS, lambda number, frame: None)  # what signals ask for is the first one's to decide
    try:
        with heeded, _met(launch.device(resolve_device(config.device))) as (shards, waiting):
            whole, out = _told(waiting)
            store = RunStore(Path(out), writes=False)
            context = open_context(attrs.evolve(whole, device=launch.device(whole.device)), store, Stop(insist=False))
            context = attrs.evolve(context, shards=shards)
            while (job := _told(waiting)) is not None:
                if run_job(context, job, lambda event: None, Stop(insist=False)).lost:
                    raise SystemExit(1)
    except LostProcessError:
        raise SystemExit(1) from None
    raise SystemExit(0)


def _told(waiting: Shards) -> Any:
    """What the first process hands over next."""
    return waiting.agreed(None)


@contextmanager
def _met(device: str) -> Iterator[tuple[Shards, Shards]]:
    """The processes that torchrun started: as they train in step, and as they wait for work."""
    import torch.distributed as dist

    from anarch_core.sharding.joining import TIMEOUT, backend_of
    from anarch_core.sharding.shards import Shards, told

    with told():
        dist.init_process_group("gloo", timeout=FOR_WORK)  # the first one comes when it has planned the run
        in_step: Any = dist.new_group(backend=backend_of(device), timeout=timedelta(seconds=TIMEOUT))
    try:
        yield Shards(in_step), Shards()
    finally:
        dist.destroy_process_group()
