"""Slurm's own commands: which jobs there are and how they fare, and how they are ended."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

import attrs

from anarch_core.errors import ConfigError

COMMANDS = ("sbatch", "srun", "squeue", "scancel")

ENDED = frozenset(
    ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT")
)
"""States that a job does not leave again. PREEMPTED is that of one that is not requeued."""

PATIENCE = 60
"""Seconds for which a command may wait for Slurm's controller."""

_FORMAT = "%i|%K|%T|%N|%r|%j"


@attrs.frozen
class Found:
    """A job as Slurm sees it.

    Attributes:
        id: as users name it, ``17`` or, of an array, ``17_0``.
        name: of its submission.
        index: which one of the array; 0 where there is none.
        state: in Slurm's words, such as ``"RUNNING"``.
        node: where it runs or ran; empty if nowhere yet.
        reason: why it waits, in Slurm's words; empty if it does not.
    """

    id: str
    name: str
    index: int
    state: str
    node: str
    reason: str

    @property
    def ended(self) -> bool:
        """Whether it will not run any more."""
        return self.state in ENDED

    @property
    def called(self) -> str:
        """``"Slurm job 17 on n1"``."""
        return f"Slurm job {self.id}{f' on {self.node}' if self.node else ''}"


def require_commands() -> None:
    """Refuse to work where there is no Slurm.

    Raises:
        ConfigError: its commands are not there.
    """
    missing = [command for command in COMMANDS if shutil.which(command) is None]
    if missing:
        msg = f"--workers slurm needs Slurm's commands, and there is no {missing[0]} on this machine's PATH; "
        msg += "call anarch where jobs are submitted, such as on a login node, or train here with --workers local"
        raise ConfigError(msg)


def look(names: Sequence[str]) -> list[Found] | None:
    """The jobs of these submissions; those that ended long ago may be missing. None if Slurm does not answer.

    Args:
        names: of submissions, at least one.
    """
    printed = _ask(
        "squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}", f"--format={_FORMAT}", f"--name={','.join(names)}"
    )
    if printed is None:
        return None
    found = [job for line in printed.splitlines() if (job := _job(line)) is not None]
    missing = set(names) - {job.name for job in found}
    return found + (_remembered(sorted(missing)) if missing else [])


def cancel(jobs: Sequence[str], *how: str) -> None:
    """``scancel``, for any number of jobs; those that have ended by then do not mind."""
    if jobs:
        _ask("scancel", "--quiet", *how, *jobs)


def has_gpus(partition: str | None) -> bool:
    """Whether there are GPUs in a partition, the whole cluster if none is named."""
    where = () if partition is None else (f"--partition={partition}",)
    return "gpu" in (_ask("sinfo", "--noheader", "--format=%G", *where) or "")


def refusal(arguments: Sequence[str]) -> str | None:
    """Why Slurm would never take a job, in its words; None if it might.

    Args:
        arguments: of ``sbatch``.
    """
    try:
        tried = _run("sbatch", "--test-only", *arguments, "--wrap=true")
    except (OSError, subprocess.TimeoutExpired):
        return None
    words = in_short(tried.stderr)
    return words if tried.returncode and "invalid" in words.lower() else None


def in_short(printed: str) -> str:
    """Of what a command of Slurm complains, the last line, without what all of them begin with."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    words = lines[-1] if lines else "it does not say why"
    for beginning in ("sbatch: error: ", "sbatch: ", "Batch job submission failed: ", "allocation failure: "):
        words = words.removeprefix(beginning)
    return words


def _job(line: str) -> Found | None:
    fields = line.strip().split("|")
    if len(fields) != _FORMAT.count("|") + 1:
        return None
    identity, index, state, node, reason, name = fields
    return Found(identity, name, int(index) if index.isdecimal() else 0, state, node, "" if reason == "None" else reason)


def _remembered(names: Sequence[str]) -> list[Found]:
    """Jobs that ``squeue`` has forgotten, by Slurm's accounting where there is one."""
    if shutil.which("sacct") is None:
        return []
    printed = _ask(
        "sacct", "--noheader", "--allocations", "--parsable2", "--format=JobID,State,NodeList,JobName", f"--name={','.join(names)}"
    )
    found = []
    for line in (printed or "").splitlines():
        identity, state, node, name = (*line.split("|"), "", "", "", "")[:4]
        index = identity.rpartition("_")[2] if "_" in identity else "0"
        if name in names and index.isdecimal() and state:
            found.append(Found(identity, name, int(index), state.split()[0], node, ""))
    return found


def _ask(*command: str) -> str | None:
    """What a command prints; None if it fails."""
    try:
        ended = _run(*command)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if ended.returncode else ended.stdout


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    """In a session of its own: a Ctrl-C for the run is not one for it."""
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=PATIENCE,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
