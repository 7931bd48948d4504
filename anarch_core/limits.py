"""What a container or a shell allows this process of the machine: memory and processors of its control groups, and limits of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import attrs


@attrs.frozen
class _Kind:
    """Where a version of control groups keeps what."""

    type: str
    memory: tuple[str, ...]
    used: str
    reclaimable: str


KINDS = (
    _Kind("cgroup2", ("memory.max", "memory.high"), "memory.current", "inactive_file"),
    _Kind("cgroup", ("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file"),
)


def allowed_bytes(root: Path = Path("/")) -> int | None:
    """Bytes that this process may still allocate in the host's memory by its control groups and its own limits; None where nothing limits.

    A group's limit holds for all that is in it, and so does the limit of every group around it. File pages that were not used lately are
    given back when memory is short, so they count as free.

    Args:
        root: folder in which ``proc`` and ``sys`` are.
    """
    left = [own_allowance(root), shared_allowance(root)]
    return min((each for each in left if each is not None), default=None)


def shared_allowance(root: Path = Path("/")) -> int | None:
    """By the control groups, which this process shares with those that it starts; None where there are none that limit."""
    left = []
    for kind, group in _groups(root, "memory"):
        limits = [limit for name in kind.memory if (limit := _number(group / name)) is not None]
        used = _number(group / kind.used)
        if limits and used is not None:
            left.append(max(0, min(limits) - used + min(used, _entry(group / "memory.stat", kind.reclaimable))))
    return min(left, default=None)


def allowed_cores(root: Path = Path("/")) -> int | None:
    """Processors whose whole time the control groups of this process allow it, rounded up; None where nothing limits."""
    found = []
    for kind, group in _groups(root, "cpu"):
        quota, period = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
        if kind.type == "cgroup2" and (words := _text(group / "cpu.max").split()):
            quota, period = (int(word) if word.isdecimal() else None for word in words[:2])
        if quota and period and quota > 0:
            found.append(max(1, math.ceil(quota / period)))
    return min(found, default=None)


def own_allowance(root: Path = Path("/")) -> int | None:
    """By the limits that ``ulimit`` sets, on address space and on data, which each process has for itself; None where there are none."""
    try:
        import resource
    except ImportError:  # there is none on Windows
        return None
    left = []
    for limit, key in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        most = resource.getrlimit(limit)[0]
        if most != resource.RLIM_INFINITY:
            left.append(max(0, most - 1024 * _entry(root / "proc/self/status", f"{key}:")))
    return min(left, default=None)


def _groups(root: Path, controller: str) -> Iterator[tuple[_Kind, Path]]:
    """The folders of the control groups around this process, from the inside out."""
    own = {}
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, names, path = [*line.split(":", 2), "", ""][:3]
        own.update(dict.fromkeys(names.split(","), path))  # version 2 has no name
    for line in _text(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, filesystem = before.split(), after.split()
        if len(fields) < 5 or len(filesystem) < 3:
            continue
        kind = next((kind for kind in KINDS if kind.type == filesystem[0]), None)
        name = "" if filesystem[0] == "cgroup2" else controller
        if kind is None or name not in own or (name and name not in filesystem[2].split(",")):
            continue
        mounted = root / fields[4].lstrip("/")
        inside = PurePosixPath(own[name])
        # In a container the group may be mounted as the root of what there is to be seen.
        inner = inside.relative_to(fields[3]) if inside.is_relative_to(fields[3]) else PurePosixPath()
        if ".." in inner.parts:
            continue
        group = mounted / inner
        for folder in (group, *group.parents):
            yield kind, folder
            if folder == mounted:
                break


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _number(file: Path) -> int | None:
    text = _text(file).strip()
    return int(text) if text.removeprefix("-").isdecimal() else None


def _entry(file: Path, key: str) -> int:
    """The first number of the line that begins with a word; 0 where there is none."""
    rows = (line.split() for line in _text(file).splitlines())
    return next((int(row[1]) for row in rows if len(row) > 1 and row[0] == key and row[1].isdecimal()), 0)
