"""Workers that are this process: one segment at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from anarch_core.workers.base import AbstractWorkers, Crew, Outcome
from anarch_core.workers.training import run_job

if TYPE_CHECKING:
    from anarch_core.experiment.events import Job


class InProcess(AbstractWorkers):
    """Trains segments here, with the context of the run; the number of threads found is put back at the end."""

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self._jobs: list[Job] = []
        self._threads_found: int | None = None

    def open(self, crew: Crew) -> None:
        """Take as many threads as the run has settled on."""
        import torch

        self._crew = crew
        self._threads_found = torch.get_num_threads()
        torch.set_num_threads(crew.context.config.threads or 1)

    @property
    def capacity(self) -> int:
        """One."""
        return 1

    def submit(self, job: Job) -> None:
        """Remember the job for :meth:`wait`."""
        self._jobs.append(job)

    def wait(self) -> Sequence[Outcome]:
        """Train one segment, however long that takes."""
        return [run_job(self._crew.context, self._jobs.pop(), self._crew.on_event, self._crew.stop)] if self._jobs else []

    def stop(self) -> None:
        """Nothing to do: the run's own word is asked after every step."""

    def close(self, *, at_once: bool = False) -> None:
        """Put the number of threads back."""
        import torch

        if self._threads_found is not None:
            torch.set_num_threads(self._threads_found)
            self._threads_found = None
