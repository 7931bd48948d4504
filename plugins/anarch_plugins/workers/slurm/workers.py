"""Workers that are jobs of Slurm: each segment is one, and the run directory, on a file system that all nodes share, is what they know.

Who drives the run only submits and reads. It may be killed, and its jobs go on; another one finds them by their names.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import attrs

from anarch_core.errors import ConfigError, RunError
from anarch_core.workers import AbstractWorkers, Crew, Outcome
from anarch_plugins.workers.slurm import queue
from anarch_plugins.workers.slurm.attempt import Attempt
from anarch_plugins.workers.slurm.gathering import Gathering
from anarch_plugins.workers.slurm.options import SlurmOptions
from anarch_plugins.workers.slurm.submission import FOLDER, Submission, parameters, require_submitit

if TYPE_CHECKING:
    from anarch_core.workers import Job

DEVICES = ("auto", "cpu", "cuda")

ASKED_EVERY = 5.0
"""Seconds between two questions to Slurm's controller, which serves the whole cluster."""

HEARD_EVERY = 0.5
"""Seconds between two looks at what jobs have told."""

CANCELLED = 3
"""How often somebody cancels the job of a segment before that is taken for an answer."""

SETTLED_WITHIN = 15.0
"""Seconds in which a job ends whose segment is done."""


class SlurmWorkers(AbstractWorkers):
    """Submits a job per segment, and reads what jobs tell.

    Raises:
        MissingDependencyError: submitit is not installed.
        ConfigError: there is no Slurm on this machine, or it would never take such a job.
    """

    options: SlurmOptions

    def __init__(self, options: SlurmOptions) -> None:
        super().__init__(options)
        require_submitit()
        queue.require_commands()
        asked = {name: getattr(options, name) for name in ("partition", "account", "qos", "constraint")}
        why = queue.refusal([f"--{name}={value}" for name, value in asked.items() if value is not None])
        if why is not None:
            msg = f"Slurm takes no such job: {why}; see --slurm-partition, --slurm-account, --slurm-qos and --slurm-constraint"
            raise ConfigError(msg)
        self._underway: list[Attempt] = []
        self._settling: list[Attempt] = []
        self._cancelled: Counter[str] = Counter()
        self._undone: Counter[str] = Counter()
        self._stopping = False
        self._asker: ThreadPoolExecutor | None = None
        self._answer: tuple[frozenset[str], Future[list[queue.Found] | None]] | None = None
        self._asked = 0.0

    def open(self, crew: Crew) -> None:
        """Settle what every job asks for.

        Raises:
            ConfigError: the run directory has a name that Slurm reads something into, or the device is a certain card.
        """
        config, self._store = crew.context.config, crew.context.store
        if "%" in str(self._store.path.absolute()):
            msg = f"Slurm reads a % in the name of a file as something else, and {self._store.path} has one; choose another --out"
            raise ConfigError(msg)
        self._crew = crew
        if config.device not in DEVICES:
            msg = f"Slurm decides which card a job gets, so a --device is one of {', '.join(DEVICES)}, not {config.device}"
            raise ConfigError(msg)
        gpus = self.options.gpus
        if gpus is None:
            gpus = int(config.device == "cuda" or (config.device == "auto" and queue.has_gpus(self.options.partition)))
        device = config.device if config.device != "auto" else "cuda" if gpus else "cpu"
        asked = parameters(self.options, threads=config.threads or 1, gpus=gpus)
        self._gathering = Gathering(crew, attrs.evolve(config, device=device), asked)
        self._asker = ThreadPoolExecutor(1)

    @property
    def capacity(self) -> int:
        """As many as ``--jobs``; all that are ready if it was not given."""
        return self._crew.context.config.jobs or 1_000_000

    def adopt(self, known: Collection[str]) -> Collection[str]:
        """Segments whose jobs are in Slurm's queue, or run.

        Raises:
            RunError: Slurm does not say whether any do.
        """
        submissions = {submission.name: submission for submission in Submission.all_of(self._store.path)}
        if not submissions:
            return ()
        found = queue.look(list(submissions))
        if found is None:
            msg = f"Slurm does not answer, and an earlier process of the run in {self._store.path} submitted jobs that may go on; try later"
            raise RunError(msg)
        alive = {(job.name, job.index): job for job in found if not job.ended}
        for submission in submissions.values():
            attempts = [Attempt.of(submission, index, self._store) for index in range(len(submission.segments))]
            going = [attempt for attempt in attempts if (submission.name, attempt.index) in alive]
            for attempt in going:
                job = alive[submission.name, attempt.index]
                if attempt.segment not in known:
                    self._crew.say(f"Slurm job {job.id} trains what the run does not ask for any more; 'scancel {job.id}' ends it")
                    continue
                attempt.listener.skip()
                self._underway.append(attempt)
            self._undone[submission.name] = len(going)
            if not going:
                submission.remove()
        if self._underway:
            jobs = ", ".join(alive[attempt.submission.name, attempt.index].id for attempt in self._underway)
            self._crew.say(f"still in Slurm, of an earlier process of this run: {'job' if len(self._underway) == 1 else 'jobs'} {jobs}")
            self._gathering.accepted = True
        return [attempt.segment for attempt in self._underway]

    def submit(self, job: Job) -> None:
        """Remember the job: those that are ready together are submitted together, by :meth:`wait`."""
        self._gathering.add(job)

    def wait(self) -> Sequence[Outcome]:
        """Submit what is ready, ask how the jobs fare, and read what they told.

        Raises:
            ConfigError: Slurm takes no job at all.
        """
        outcomes = [Outcome(segment=identity) for identity in self._gathering.clear()] if self._stopping else []
        self._submit()
        self._ask()
        for attempt in self._underway:
            for event in attempt.events():
                self._crew.on_event(event)
        outcomes += self._ended()
        if not outcomes:
            time.sleep(HEARD_EVERY)
        return outcomes

    def stop(self) -> None:
        """Cancel jobs that wait, and have those that run save their state, now and whenever one turns up."""
        self._stopping = True
        self._asked = 0.0

    def close(self, *, at_once: bool = False) -> None:
        """Cancel the jobs that are left, which still have the time that Slurm gives them to save their state; tidy up behind others."""
        if self._asker is None:
            return
        self._asker.shutdown(wait=not at_once)
        self._asker = None
        self._gathering.clear()
        names = sorted({attempt.submission.name for attempt in self._underway})
        if names:
            queue.cancel([job.id for job in queue.look(names) or [] if not job.ended])
            self._underway.clear()
        until = time.monotonic() + (0.0 if at_once else SETTLED_WITHIN)
        while self._settling and time.monotonic() < until:
            names = sorted({attempt.submission.name for attempt in self._settling})
            found = queue.look(names)
            if found is not None:
                self._take(names, found)
            if self._settling:
                time.sleep(HEARD_EVERY)
        folder = self._store.path / FOLDER
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()

    def _submit(self) -> None:
        """Hand over what is ready, and have an eye on it from then on."""
        for submission in self._gathering.submit():
            self._underway += [Attempt.of(submission, index, self._store) for index in range(len(submission.segments))]
            self._undone[submission.name] = len(submission.segments)
            self._asked = 0.0

    def _ask(self) -> None:
        """Ask Slurm how the jobs fare, while the run goes on, and take what it says."""
        if self._answer is not None:
            names, answer = self._answer
            if not answer.done():
                return
            self._answer = None
            found = answer.result()
            if found is not None:
                self._take(names, found)
        names = frozenset(attempt.submission.name for attempt in (*self._underway, *self._settling))
        if names and self._asker is not None and time.monotonic() >= self._asked + (HEARD_EVERY if self._stopping else ASKED_EVERY):
            self._asked = time.monotonic()
            self._answer = names, self._asker.submit(queue.look, sorted(names))

    def _take(self, names: Collection[str], found: Sequence[queue.Found]) -> None:
        """Take note of what Slurm says of the submissions that it was asked about; tell it what is to be ended."""
        jobs = {(job.name, job.index): job for job in found}
        for attempt in (*self._underway, *self._settling):
            if attempt.submission.name in names:
                event = attempt.see(jobs.get((attempt.submission.name, attempt.index)))
                if event is not None and attempt in self._underway:
                    self._crew.on_event(event)
        for attempt in self._underway:
            if (text := attempt.stuck()) is not None:
                self._crew.say(text)
        if self._stopping:
            left = [attempt.found for attempt in self._underway if attempt.found is not None and not attempt.found.ended]
            queue.cancel([job.id for job in left if job.state == "PENDING"], "--state=PENDING")
            queue.cancel([job.id for job in left if job.state == "RUNNING"], "--signal=TERM")
        # A job that is preempted in its last moment, its segment done, is requeued all the same.
        again = [attempt.found for attempt in self._settling if attempt.found is not None and attempt.found.state == "PENDING"]
        queue.cancel([job.id for job in again], "--state=PENDING")
        self._settle()

    def _ended(self) -> list[Outcome]:
        """What came of jobs that ended."""
        outcomes = []
        for attempt in tuple(self._underway):
            outcome = attempt.outcome(patient=not self._stopping)
            if outcome is None:
                continue
            self._underway.remove(attempt)
            if outcome.result is not None:
                self._settling.append(attempt)
            elif outcome.lost and self._stopping:
                outcome = Outcome(segment=attempt.segment)
            elif outcome.lost and attempt.cancelled:
                self._cancelled[attempt.segment] += 1
                if self._cancelled[attempt.segment] >= CANCELLED:
                    outcome = attrs.evolve(outcome, lost=False, error=f"{outcome.error}, as {CANCELLED - 1} jobs before it")
            outcomes.append(outcome)
        return outcomes

    def _settle(self) -> None:
        """Forget submissions whose jobs have all done their segments and are gone; what others wrote is kept."""
        for attempt in [attempt for attempt in self._settling if attempt.over]:
            self._settling.remove(attempt)
            self._undone[attempt.submission.name] -= 1
            if not self._undone[attempt.submission.name]:
                attempt.submission.remove()
