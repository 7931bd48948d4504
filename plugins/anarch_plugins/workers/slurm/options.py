"""Options of ``slurm``: what each job asks for."""

from __future__ import annotations

import re
from typing import Any

import attrs

from anarch_core.plugin import between, opt

_TIME = re.compile(r"(?:(?P<unit>\d+)(?P<letter>[mhd])|(?:(?P<days>\d+)-)?(?P<hours>\d+):(?P<minutes>\d\d)(?::(?P<seconds>\d\d))?)")
_MEMORY = re.compile(r"[1-9]\d*[KMGT]?")


def minutes(time: str) -> int:
    """What a time limit is in minutes, rounded up.

    Raises:
        ValueError: it has none of the forms.
    """
    found = _TIME.fullmatch(time)
    if found is None:
        msg = f"{time!r} is no time that Slurm knows; expected 90m, 4h, 2d, 12:00:00 or 1-12:00:00"
        raise ValueError(msg)
    if found["letter"]:
        total = int(found["unit"]) * {"m": 1, "h": 60, "d": 1440}[found["letter"]]
    else:
        total = int(found["days"] or 0) * 1440 + int(found["hours"]) * 60 + int(found["minutes"]) + (int(found["seconds"] or 0) > 0)
    if not total:
        msg = f"{time!r} is no time at all; a job needs a minute at least, and then gets not far"
        raise ValueError(msg)
    return total


def _time(_: object, __: object, value: str) -> None:
    minutes(value)


def _word(_: object, attribute: Any, value: str | None) -> None:
    if value is not None and not re.fullmatch(r"[\x21-\x7e]+", value):
        msg = f"{attribute.name} = {value!r} is no name of Slurm's, which has no spaces"
        raise ValueError(msg)


def _memory(_: object, __: object, value: str | None) -> None:
    if value is not None and not _MEMORY.fullmatch(value):
        msg = f"memory = {value!r} is no amount that Slurm knows; expected 16G, or 900M"
        raise ValueError(msg)


def _lines(_: object, __: object, value: tuple[str, ...]) -> None:
    if any("\n" in line or "\0" in line for line in value):
        msg = "setup is a list of lines, each without a line break"
        raise ValueError(msg)


@attrs.frozen(kw_only=True)
class SlurmOptions:
    """What a job asks Slurm for; what is not given is left to the cluster. Its processors are ``--threads``, one by default."""

    partition: str | None = attrs.field(default=None, validator=_word, metadata=opt("Partition to submit to."))
    account: str | None = attrs.field(default=None, validator=_word, metadata=opt("Account that the jobs are charged to."))
    qos: str | None = attrs.field(default=None, validator=_word, metadata=opt("Quality of service."))
    time: str = attrs.field(
        default="4h",
        validator=_time,
        metadata=opt("Time limit of a job: 90m, 4h, 2d, 12:00:00 or 1-12:00:00; a segment that takes longer goes on in another stretch."),
    )
    gpus: int | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(between(0, 64)),
        metadata=opt("GPUs of a job; by default one with --device cuda, and with --device auto where the cluster has GPUs."),
    )
    memory: str | None = attrs.field(default=None, validator=_memory, metadata=opt("Memory of a job on its node: 16G, 900M."))
    constraint: str | None = attrs.field(default=None, validator=_word, metadata=opt("Features that a node must have, as of sbatch."))
    setup: tuple[str, ...] = attrs.field(
        default=(), validator=_lines, metadata=opt("Lines of shell before the training, such as 'module load cuda'.")
    )
