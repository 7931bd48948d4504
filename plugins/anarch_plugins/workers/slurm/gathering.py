"""The jobs of a run that are ready, gathered until they are submitted, in as few arrays as Slurm takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from anarch_core.errors import ConfigError
from anarch_core.workers import Crew, versions
from anarch_plugins.workers.slurm import queue
from anarch_plugins.workers.slurm.submission import RefusedError, Submission, submit

if TYPE_CHECKING:
    from anarch_core.config import RunConfig
    from anarch_core.workers import Job
    from anarch_plugins.workers.slurm.task import SegmentTask

ARRAY = 500
"""Jobs of one array at most; clusters take 1000 unless they say otherwise."""

REFUSED_FOR = 60.0
"""Seconds after which Slurm is asked again that took no more jobs."""


class Gathering:
    """Jobs that Slurm does not have yet.

    Args:
        crew: of the run.
        config: of the run, as jobs train it.
        parameters: what every job asks for, from :func:`anarch_plugins.workers.slurm.submission.parameters`.

    Attributes:
        accepted: whether Slurm took any job of the run: it takes such jobs, if not always.
    """

    def __init__(self, crew: Crew, config: RunConfig, parameters: dict[str, Any]) -> None:
        self._crew, self._config, self._parameters = crew, config, parameters
        self._run = crew.context.store.path
        self._versions = versions(crew.context.config)
        self._jobs: list[Job] = []
        self._refused, self._not_before, self._together = "", 0.0, ARRAY
        self.accepted = False

    def add(self, job: Job) -> None:
        """Another job is ready."""
        self._jobs.append(job)

    def clear(self) -> list[str]:
        """Submit nothing of what was gathered; the identities of its segments."""
        dropped = [job.segment.id for job in self._jobs]
        self._jobs.clear()
        return dropped

    def submit(self) -> Iterator[Submission]:
        """Hand over what was gathered, as far as Slurm takes it.

        Raises:
            ConfigError: it takes nothing, and never did.
        """
        while self._jobs and time.monotonic() >= self._not_before:
            jobs = self._jobs[: self._together]
            submission = Submission.begin(self._run, [job.segment.id for job in jobs])
            try:
                submit(submission, [self._task(job, submission, index) for index, job in enumerate(jobs)], self._parameters)
            except RefusedError as error:
                # A controller that answered too late may have taken them all the same.
                queue.cancel([job.id for job in queue.look([submission.name]) or [] if not job.ended])
                submission.remove()
                self._refuse(str(error), len(jobs))
                continue
            self.accepted, self._refused = True, ""
            del self._jobs[: len(jobs)]
            yield submission

    def _refuse(self, why: str, count: int) -> None:
        """Slurm did not take so many jobs: it may take fewer, or the same later.

        Raises:
            ConfigError: it took none so far, and not even one.
        """
        if count > 1:
            self._together = count // 2
            return
        if not self.accepted:
            msg = f"Slurm did not take the job: {why}"
            raise ConfigError(msg)
        self._not_before = time.monotonic() + REFUSED_FOR
        if why != self._refused:
            self._refused = why
            self._crew.say(f"Slurm takes no more jobs for now: {why}; it is asked again every minute")

    def _task(self, job: Job, submission: Submission, index: int) -> SegmentTask:
        from anarch_plugins.workers.slurm.task import SegmentTask

        return SegmentTask(
            run=str(self._run.absolute()),
            config=self._config,
            need=self._crew.need,
            begun_with=self._versions,
            job=job,
            events=str(submission.events(index).absolute()),
        )
