"""Devices: how they are named, which of a machine's cards a run takes, and what shows a process of its own the card that is its own.

A process that is to have a card to itself is given one entry of ``CUDA_VISIBLE_DEVICES``, as it stands in this process's own, so that
ordinals, UUIDs of cards and of their MIG instances stay what they are. In it the card is ``"cuda"``, for code of others as well.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence

import attrs

from anarch_core.bounds import shown
from anarch_core.errors import ConfigError

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""The variable by which CUDA is told the cards of a process, in its order: ordinals or UUIDs."""

CONTEXT_BYTES = 512 * 2**20
"""What a process takes of a card beside its tensors: CUDA's context, kernels and workspaces. It cannot be asked for before it is
taken, and depends on the kind of card; this much is assumed."""

_NUMBERED = re.compile(r"cuda:(0|[1-9][0-9]{0,2})")


@attrs.frozen
class Place:
    """Where a segment is trained: by a process, or by several together.

    Attributes:
        name: as this process calls it: ``"cpu"`` or ``"cuda:1"``, and ``"cuda:0,cuda:1"`` of several processes.
        device: as the process that trains there calls it: ``"cpu"`` or ``"cuda"``.
        visible: what :data:`VISIBLE` is for it; None to leave it as it is.
        data_on: where it keeps the data: ``"device"``, ``"host"``, or ``"auto"`` where that is left to it.
        members: where each of several processes that train a segment together does so, the first first; empty for one process.
    """

    name: str
    device: str
    visible: str | None = None
    data_on: str = "auto"
    members: tuple[Place, ...] = ()

    @property
    def processes(self) -> tuple[Place, ...]:
        """Where each process is, also where there is only one."""
        return self.members or (self,)


def device_choice(written: str) -> str:
    """A choice of devices as it is kept: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or several cards as in ``"cuda:0,cuda:2"``.

    Raises:
        ConfigError: it is none.
    """
    names = [name.strip() for name in written.split(",")]
    if not all(name in ("auto", "cpu", "cuda") or _NUMBERED.fullmatch(name) for name in names):
        msg = f"expected auto, cpu, cuda, cuda:N, or several cards as in cuda:0,cuda:2, got {shown(written)}"
        raise ConfigError(msg)
    for name in names:
        if len(names) > 1 and name in ("auto", "cpu", "cuda"):
            why = "is every card already" if name == "cuda" else "goes with no other device"
            msg = f"{name} {why}; expected one device, or several cards as in cuda:0,cuda:2, got {shown(written)}"
            raise ConfigError(msg)
        if names.count(name) > 1:
            msg = f"{name} is named twice in {shown(written)}; name each card once, and say how many segments each trains at once with jobs"
            raise ConfigError(msg)
    return ",".join(names)


def resolve_device(name: str) -> str:
    """The devices that the user asked for, as :func:`device_choice` gives them; ``"auto"`` takes the cards where there are any.

    Raises:
        ConfigError: it names no device, or one that is not there.
    """
    name = device_choice(name)
    if name == "cpu":
        return name
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not torch.cuda.is_available():
        why = "this PyTorch is built without CUDA" if torch.version.cuda is None else f"no GPU is visible{_by_variable()}"
        msg = f"device {name!r} is not there: {why}; use --device cpu or --device auto"
        raise ConfigError(msg)
    _require(name, torch.cuda.device_count())
    return name


def one_device(name: str) -> str:
    """Like :func:`resolve_device`, of what is done on one device: the first card where it is not said which.

    Raises:
        ConfigError: it names no device, or one that is not there, or several.
    """
    if "," in device_choice(name):
        msg = f"one device is enough here, got {shown(name)}; name one of them, such as {first_device(name)}"
        raise ConfigError(msg)
    return resolve_device(name)


def first_device(name: str) -> str:
    """``"cuda:2"`` for ``"cuda:2,cuda:0"``; a device alone is itself."""
    return name.partition(",")[0].strip()


@contextlib.contextmanager
def in_use(name: str) -> Iterator[None]:
    """Let ``"cuda"`` mean the first of the named cards in this process, for code of others that knows no number.

    Args:
        name: a choice of devices that was resolved; where it names no card nothing is changed.
    """
    if ":" not in name:
        yield
        return
    import torch

    with torch.cuda.device(first_device(name)):
        yield


def cards(name: str) -> tuple[Place, ...]:
    """The places of a choice of devices that was resolved: one for each card, or the processor.

    Raises:
        ConfigError: a card is not there, or what other processes would have to be told to see it is not known.
    """
    if name == "cpu":
        return (Place("cpu", "cpu"),)
    import torch

    return chosen(name, visible_entries(os.environ.get(VISIBLE), torch.cuda.device_count()))


def chosen(name: str, entries: Sequence[str]) -> tuple[Place, ...]:
    """The cards of a choice, in its order.

    Args:
        name: ``"cuda"`` for all, or numbered cards.
        entries: what :data:`VISIBLE` is for each card alone, by its number.

    Raises:
        ConfigError: a card is not there.
    """
    _require(name, len(entries))
    numbers = range(len(entries)) if name == "cuda" else [int(each.removeprefix("cuda:")) for each in name.split(",")]
    return tuple(Place(f"cuda:{number}", "cuda", entries[number]) for number in numbers)


def visible_entries(variable: str | None, count: int) -> tuple[str, ...]:
    """What :data:`VISIBLE` is for each card alone, by its number in this process.

    CUDA counts the entries of the variable from 0, and sees none from the first on that is no card (``"-1"``, for one).

    Args:
        variable: as it is in this process; None where it is not set, and cards are counted as they are.
        count: cards that PyTorch found.

    Raises:
        ConfigError: the variable does not say which cards those are.
    """
    if variable is None:
        return tuple(map(str, range(count)))
    entries = [entry.strip() for entry in variable.split(",")][:count]
    if len(entries) < count or "" in entries:
        msg = (
            f"{VISIBLE} is {shown(variable)}, but PyTorch found {count} card(s): it was changed after PyTorch first looked; "
            "set it before the program starts"
        )
        raise ConfigError(msg)
    twice = next((entry for entry in entries if entries.count(entry) > 1), None)
    if twice is not None:
        msg = f"{VISIBLE} is {shown(variable)}, which names {twice} twice; name each card once"
        raise ConfigError(msg)
    return tuple(entries)


def in_turn(places: Sequence[Place], jobs: int) -> tuple[Place, ...]:
    """Each place as often as it takes jobs, in the order in which they are filled: every card gets one before any gets a second."""
    return tuple(place for _ in range(jobs) for place in places)


def team(members: Sequence[Place]) -> Place:
    """The place of processes that train a segment together; of one that is alone, its own."""
    first = members[0]
    if len(members) == 1:
        return first
    visible = None if first.visible is None else ",".join(member.visible or "" for member in members)
    name = ",".join(dict.fromkeys(member.name for member in members))
    return attrs.evolve(first, name=name, visible=visible, members=tuple(members))


def _require(name: str, count: int) -> None:
    for each in name.split(","):
        if each != "cuda" and int(each.removeprefix("cuda:")) >= count:
            msg = f"device {each!r} is not there: {count} GPU(s) are visible{_by_variable()}, counted from cuda:0"
            raise ConfigError(msg)


def _by_variable() -> str:
    """What to look at where fewer cards are seen than there are."""
    variable = os.environ.get(VISIBLE)
    return "" if variable is None else f" by {VISIBLE}={shown(variable)}"
