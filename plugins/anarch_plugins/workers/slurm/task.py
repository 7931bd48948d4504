"""What a job does on its node: trains one segment, tells of it, and has itself requeued when its time runs out."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from anarch_core.config import RunConfig
from anarch_core.errors import OutOfMemoryError, Stopped
from anarch_core.workers import Event, Job, Need, Outcome, RunStore, Stop, open_elsewhere, run_job
from anarch_plugins.workers.slurm.telling import ENDED, PLACED, Teller

OUT_OF_TIME, END = signal.SIGUSR2, signal.SIGTERM
"""What Slurm says shortly before the time of a job is over, and what it, or the run, says to end it."""

VISIBLE_AFTER = 60.0
"""Seconds after which a file that another machine wrote is seen, whatever a network file system remembers of its folder."""


@attrs.frozen(kw_only=True)
class SegmentTask:
    """Trains a segment; pickled by submitit, so it holds nothing but names and settings.

    Attributes:
        run: the run directory.
        config: of the run, with the device that every job is to use.
        need: what training takes.
        begun_with: versions where the run was asked for.
        job: what is trained.
        events: the file to tell to.
    """

    run: str
    config: RunConfig
    need: Need
    begun_with: Mapping[str, str]
    job: Job
    events: str

    def __call__(self) -> None:
        """Train.

        Raises:
            SystemExit: it ended before the segment did; Slurm's state says how, and the last line of the log why.
        """
        stop, teller = Stop(insist=False), Teller(Path(self.events))
        saved = False

        def emit(event: Event) -> None:
            nonlocal saved
            saved |= event.kind == "saved"
            teller(event)

        with contextlib.closing(teller):
            with stop.on_signals((OUT_OF_TIME, END)):  # in place of submitit's handlers, which do not wait for a state to be saved
                outcome = self._train(emit, stop)
            if outcome.result is not None or outcome.error is not None:
                teller(Event(ENDED, outcome.segment, {"error": outcome.error, "trace": outcome.trace}))
                return
        if stop.asked == OUT_OF_TIME:
            requeue(saved=saved)

    def checkpoint(self) -> Any:
        """What submitit gives to Slurm when the job is requeued: the same, which goes on from the state that was saved."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _train(self, emit: Callable[[Event], None], stop: Stop) -> Outcome:
        identity = self.job.segment.id
        try:
            emit(Event(PLACED, identity, place(os.environ, gpu=self.config.device != "cpu")))
            store = RunStore(Path(self.run))
            context = open_elsewhere(self.config, store, stop, self.need, self.begun_with)
            with stop.at_once():
                snapshot = store.snapshot_left(self.job.segment)
                if snapshot is not None:
                    await_file(snapshot)
            return run_job(context, self.job, emit, stop)
        except Stopped:
            return Outcome(segment=identity)
        except OutOfMemoryError as error:
            return Outcome(segment=identity, error=f"{error}, or ask for more with --slurm-memory")
        except BaseException as error:  # whatever it is, the run tells it: nobody else will
            return Outcome.failed(identity, error)


def requeue(*, saved: bool) -> None:
    """Have this job wait for another stretch of time.

    Args:
        saved: whether it has got any further in this one.

    Raises:
        SystemExit: always; the run submits the segment anew where Slurm does not requeue the job.
    """
    if not saved:
        sys.exit("the time was over before anything was saved; ask for more with --slurm-time")
    try:
        signal.raise_signal(OUT_OF_TIME)  # submitit's handler
    except (OSError, subprocess.SubprocessError) as error:
        sys.exit(f"the time was over, and Slurm did not requeue the job: {error}")


def place(environment: Mapping[str, str], *, gpu: bool) -> str:
    """Where this job runs, in words: ``"Slurm job 17 on n1, GPU 0"``."""
    array, index = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    identity = environment.get("SLURM_JOB_ID", "?") if array is None else f"{array}_{index}"
    node = environment.get("SLURMD_NODENAME") or os.uname().nodename
    cards = environment.get("SLURM_STEP_GPUS") or environment.get("SLURM_JOB_GPUS") or environment.get("CUDA_VISIBLE_DEVICES")
    return f"Slurm job {identity} on {node}{f', GPU {cards}' if gpu and cards else ''}"


def await_file(path: Path, seconds: float = VISIBLE_AFTER) -> None:
    """Wait until a file is seen, or for so long; whoever opens one that is still missing says so."""
    until = time.monotonic() + seconds
    while not seen(path) and time.monotonic() < until:
        time.sleep(1)


def seen(path: Path) -> bool:
    """Whether a file is there. Its folder is listed before, upon which NFS asks its server instead of its memory."""
    with contextlib.suppress(OSError):
        os.listdir(path.parent)  # noqa: PTH208  # all at once, for its effect
    return path.exists()
