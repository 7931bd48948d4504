"""How many processes train on which cards: as many as fit, with their data and what CUDA takes, into each card's memory and the host's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import attrs

from anarch_core.cards import CONTEXT_BYTES, Place, in_turn, team
from anarch_core.errors import ConfigError, OutOfMemoryError
from anarch_core.experiment.context import ON_THE_DEVICE
from anarch_core.machine import human_bytes
from anarch_core.planning.need import Need


@attrs.frozen(kw_only=True)
class Cards:
    """Cards to share, and what is known of their memory and of the host's; all sizes are bytes.

    Attributes:
        places: the cards, in the order in which they are taken.
        named: whether each was asked for, so that none may be left out.
        free: what can be allocated on each, by name, once this process has moved its data away.
        kept: of the first one, what this process keeps there for its data while it trains itself, and in the host's memory otherwise.
        host_free: what can be allocated in the host's memory.
        host_each: what a process takes of that, with the data that it loads.
    """

    places: Sequence[Place]
    named: bool
    free: Mapping[str, int]
    kept: int
    host_free: int
    host_each: int


@attrs.frozen(kw_only=True)
class Load:
    """What each process has to hold on a card; all sizes are bytes.

    Attributes:
        need: networks.
        inputs: of the data.
        targets: of the data, which are on the card wherever the inputs are.
        data_on: where inputs are kept, ``"device"``, ``"host"``, or ``"auto"``: on the card if they take half of what is free at most.
    """

    need: Need
    inputs: int
    targets: int
    data_on: str

    def on_card(self, count: int, free: int) -> str:
        """Where so many processes keep their inputs: ``"device"`` or ``"host"``."""
        if self.data_on != "auto":
            return self.data_on
        return "device" if count * self.inputs <= ON_THE_DEVICE * free else "host"

    def data(self, count: int, free: int) -> int:
        """Bytes of data that each of so many processes holds on a card."""
        return self.targets + (self.inputs if self.on_card(count, free) == "device" else 0)

    def each(self, count: int, free: int) -> int:
        """Bytes that each of so many processes takes of a card."""
        return self.need.peak_bytes + self.data(count, free) + CONTEXT_BYTES


def share_cards(cards: Cards, load: Load, *, jobs: int | None, parallel: int, shards: int = 1) -> tuple[tuple[Place, ...], tuple[str, ...]]:
    """Where segments are trained, in the order in which places are filled, and lines that say which cards were left out.

    One place alone of one process is for this process, which is on the first card already, with its data. Processes that train a segment
    together have cards that follow each other, one each.

    Args:
        cards: that are shared.
        load: of each process.
        jobs: of each card, as the user says, or None: one, as far as the host's memory goes.
        parallel: segments that could be trained at the same time.
        shards: processes that train a segment together.

    Raises:
        OutOfMemoryError: they do not fit; or, if jobs are left open, not even one does.
        ConfigError: there are fewer cards than processes that train a segment together.
    """
    if len(cards.places) < shards:
        there = ", ".join(place.name for place in cards.places)
        msg = f"shards {shards} needs as many cards, one for each process, and there are {len(cards.places)} ({there}); use fewer --shards"
        raise ConfigError(msg)
    wanted, first = jobs or 1, cards.places[0]
    fits = {place.name: wanted * load.each(wanted, cards.free[place.name]) <= cards.free[place.name] for place in cards.places}
    taken = [place for place in cards.places if cards.named or place is first or fits[place.name]]
    if len(taken) < shards:  # those that have no room are told below
        taken = list(cards.places)
    alone = taken[len(taken) // shards * shards :]
    notes = (
        *(_left_out(place, wanted, cards, load) for place in cards.places if place not in taken),
        *(f"{place.name} is left out: of {len(taken)} cards every {shards} train together (--shards)" for place in alone),
    )
    teams = [team(taken[start : start + shards]) for start in range(0, len(taken) - len(alone), shards)]
    places = in_turn(teams, wanted)[:parallel]
    if jobs is None:
        places = places[: max(1, int(0.9 * cards.host_free - cards.kept) // max(shards * cards.host_each, 1))]
    if len(places) == shards == 1:
        load.need.require_room(cards.free[first.name] - cards.kept, first.name)
        return (first,), notes
    counts = Counter(process.name for place in places for process in place.processes)
    for name, count in counts.items():
        _require_all(name, count, cards, load)
    _require_host(len(places), shards, cards, load)
    on = {name: load.on_card(count, cards.free[name]) for name, count in counts.items()}
    return tuple(team([attrs.evolve(process, data_on=on[process.name]) for process in place.processes]) for place in places), notes


def _require_host(segments: int, shards: int, cards: Cards, load: Load) -> None:
    needed = segments * shards * cards.host_each + cards.kept
    if needed <= cards.host_free:
        return
    at_once = f"{segments} segments at once" if segments > 1 else "one segment"
    each = "each in its own process" if shards == 1 else f"{shards} processes for each"
    fewer = f"fewer cards (--device {cards.places[0].name})" if shards == 1 else "fewer --shards"
    hint = f"use fewer --jobs, or {fewer}" if segments > 1 else f"use {fewer}"
    msg = (
        f"{load.need.work}, {at_once}, {each}, needs {human_bytes(needed)} of the host's memory, "
        f"but {human_bytes(cards.host_free)} are free; {hint}"
    )
    raise OutOfMemoryError(msg, needed=needed, available=cards.host_free)


def _require_all(name: str, count: int, cards: Cards, load: Load) -> None:
    free = cards.free[name]
    needed, data = count * load.each(count, free), load.data(count, free)
    if needed <= free:
        return
    at_once, each = f" on {name}", ""
    if count > 1:
        at_once, each = f", {count} segments at once on {name},", f"{count} times {human_bytes(needed // count)}: "
    parts = f"networks {human_bytes(load.need.peak_bytes)}, data {human_bytes(data)}, CUDA {human_bytes(CONTEXT_BYTES)}"
    needs = f"{load.need.work}{at_once} needs {human_bytes(needed)} ({each}{parts})"
    hints = [
        *(["use fewer --jobs"] if count > 1 else []),
        *(["keep the data in the host's memory (--data-on host)"] if data > load.targets and needed - count * load.inputs <= free else []),
        *(["choose other cards (--device)"] if len(cards.places) > 1 else []),
    ]
    msg = f"{needs}, but {human_bytes(free)} are free there; {', or '.join(hints) or load.need.advice}"
    raise OutOfMemoryError(msg, needed=needed, available=free)


def _left_out(place: Place, count: int, cards: Cards, load: Load) -> str:
    free = cards.free[place.name]
    needed = count * load.each(count, free)
    return f"{place.name} is left out: {human_bytes(free)} are free there, and {load.need.work} needs {human_bytes(needed)}"
