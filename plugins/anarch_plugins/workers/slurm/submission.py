"""Handing jobs to Slurm through submitit, so that whoever comes later can find them.

A submission is a folder ``jobs/<name>`` of the run directory, and ``<name>`` is that of its jobs in Slurm, too. Which segments they train
is written down before Slurm is asked: whenever this process is killed, its jobs can be found by their name.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

from anarch_core.errors import AnarchError, MissingDependencyError, RunError
from anarch_plugins.workers.slurm.options import SlurmOptions, minutes
from anarch_plugins.workers.slurm.queue import in_short

FOLDER = "jobs"
"""Where submissions are kept, in the run directory."""

WARNED = 90
"""Seconds before the end of its time when a job is told to save its state; a fourth of the time where that is less."""

LONGEST = 400
"""Bytes of a log that are looked at for its last line."""

_NAME = re.compile(r"anarch-[0-9a-f]{8}")


class RefusedError(AnarchError):
    """Slurm did not take a job; the message is its own."""


@attrs.frozen
class Submission:
    """Jobs that were handed over together.

    Attributes:
        folder: what is known of them, and what they write.
        segments: which one each of them trains, by identity.
    """

    folder: Path
    segments: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of all its jobs."""
        return self.folder.name

    def events(self, index: int) -> Path:
        """What one of its jobs tells."""
        return self.folder / f"{index}.jsonl"

    def last_words(self, job: str) -> str | None:
        """The last line that a job wrote for nobody in particular; empty if it wrote none; None if it left no file at all."""
        logs = [path for name in ("err", "out") if (path := self.folder / f"{job}_0_log.{name}").exists()]
        lines = [line for path in reversed(logs) for line in _end(path).splitlines() if line.strip()]
        telling = [line for line in lines if not line.startswith("srun: ")]  # which says, last, that there was an error
        return None if not logs else (telling or lines or [""])[-1]

    def remove(self) -> None:
        """Forget it, and what its jobs wrote."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @classmethod
    def begin(cls, run: Path, segments: Sequence[str]) -> Submission:
        """Write down what is about to be submitted.

        Raises:
            RunError: what stands in the run directory where that belongs is no folder.
        """
        folder = run / FOLDER
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            msg = f"{folder} is no folder of its own, and nothing is written outside the run directory; move it elsewhere"
            raise RunError(msg)
        made = cls(run / FOLDER / f"anarch-{secrets.token_hex(4)}", tuple(segments))
        made.folder.mkdir(parents=True)
        for index in range(len(segments)):
            made.events(index).touch()  # a file that is looked for before it is there may stay unseen for a while on NFS
        (made.folder / "segments.json").write_text(json.dumps(list(segments)))
        return made

    @classmethod
    def all_of(cls, run: Path) -> list[Submission]:
        """What earlier processes of a run submitted; what is damaged is left out."""
        found = []
        for path in sorted((run / FOLDER).glob("*/segments.json")):
            try:
                segments = json.loads(path.read_text())
            except (OSError, ValueError):
                continue
            if _NAME.fullmatch(path.parent.name) and isinstance(segments, list) and all(isinstance(name, str) for name in segments):
                found.append(cls(path.parent, tuple(segments)))
        return found


def submit(submission: Submission, tasks: Sequence[Callable[[], object]], parameters: dict[str, Any]) -> None:
    """Hand jobs to Slurm, several as an array.

    Args:
        submission: theirs, which was begun.
        tasks: what they do; pickled.
        parameters: from :func:`parameters`.

    Raises:
        RefusedError: Slurm does not take them, or does not answer.
    """
    submitit = require_submitit()
    # -P: the working directory must not decide what is imported.
    executor = submitit.SlurmExecutor(submission.folder, max_num_timeout=sys.maxsize, python=f"{shlex.quote(sys.executable)} -P")
    executor.update_parameters(job_name=submission.name, **parameters)
    try:
        with executor.batch():
            for task in tasks:
                executor.submit(task)
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError, OSError) as error:
        raise RefusedError(in_short(str(error))) from error


def parameters(options: SlurmOptions, *, threads: int, gpus: int) -> dict[str, Any]:
    """What jobs ask for, in submitit's terms."""
    time = minutes(options.time)
    asked: dict[str, Any] = {
        "time": time,
        "cpus_per_task": threads,
        "signal_delay_s": min(WARNED, time * 60 // 4),
        "array_parallelism": sys.maxsize,
        "wckey": None,  # by default submitit's own name, which a cluster that keeps such keys may refuse
        # srun does not take the number of processors from the job that it belongs to, from Slurm 22.05 on.
        "srun_args": [f"--cpus-per-task={threads}"],
        "setup": [*options.setup, f"export OMP_NUM_THREADS={threads} MKL_NUM_THREADS={threads}"],
        "additional_parameters": {"requeue": True, **({} if options.memory is None else {"mem": options.memory})},
    }
    if gpus:
        asked["gres"] = f"gpu:{gpus}"
    names = {"partition": options.partition, "account": options.account, "qos": options.qos, "constraint": options.constraint}
    return asked | {key: value for key, value in names.items() if value is not None}


def _end(path: Path) -> str:
    """The last lines of a log, as text that a terminal may be given."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LONGEST))
        text = file.read(LONGEST).decode(errors="replace")
    return "".join(character if character.isprintable() or character == "\n" else " " for character in text).strip()


def require_submitit() -> Any:
    """The package, its log silent.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import submitit
    except ImportError as error:
        msg = "--workers slurm needs submitit, which is not installed: pip install 'anarch[slurm]'"
        raise MissingDependencyError(msg) from error
    logging.getLogger("submitit").setLevel(logging.CRITICAL)
    return submitit
