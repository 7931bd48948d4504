"""What an observer is told.

A run is a tree of segments: stretches of training, each with the segment that it starts from. Its events are records that nobody can
change, of numbers, texts, lists and mappings alone; :meth:`Event.to_json` makes one ready for JSON.

First comes :class:`RunBegun`, then :class:`SegmentsPlanned` with the tree, last :class:`RunFinished`. A segment is a story that begins with
:class:`SegmentStarted` and ends with one of :class:`SegmentFinished`, :class:`SegmentFailed` and :class:`SegmentSkipped`; without an end it
was stopped. The stories of segments that are trained at the same time are told in turns.

Whoever is told one story has it whole. When a run is gone on with, what earlier processes did is told again first, and marked ``earlier``:
an observer that was added later misses nothing, and one that was there knows a row of a segment by (``segment.id``, ``epoch``), and what a
probe measured by (``segment.id``, ``probe``, ``moment``). A second :class:`SegmentStarted` of a segment begins its story anew: what came
after its last saved state is trained, and told, once more.

Where more than ten thousand events wait for a slow observer, further rows, measurements and warnings are left out, and their number is
said at the end; the beginnings and ends of segments never are.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import attrs


def _read_only(value: Any) -> Any:
    """A copy that nobody can write to, of lists and mappings at any depth."""
    if isinstance(value, Mapping):
        return MappingProxyType({str(key): _read_only(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return tuple(_read_only(item) for item in value)
    return value


def _plain(value: Any) -> Any:
    """What :mod:`json` takes: numbers that are not finite become None, and a segment its identity."""
    if isinstance(value, SegmentNode):
        return value.id
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _mapping(**kwargs: Any) -> Any:
    return attrs.field(converter=_read_only, **kwargs)


def flattened(mapping: Mapping[str, Any], separator: str = ".") -> dict[str, Any]:
    """The leaves of nested mappings under their paths, ``{"a": {"b": 1}}`` as ``{"a.b": 1}``; lists are leaves."""
    return dict(_leaves(mapping, "", separator))


def _leaves(mapping: Mapping[str, Any], prefix: str, separator: str) -> Iterator[tuple[str, Any]]:
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}{separator}", separator)
        else:
            yield f"{prefix}{key}", _plain(value)


@attrs.frozen(kw_only=True)
class SegmentNode:
    """A segment's place in the tree.

    Attributes:
        id: digest of everything that decides which weights come out; the same in every run that trains the same segment.
        title: a short name for people: ``"efcn at 20ep, seed 0"``.
        kind: ``"trunk"``, ``"branch"``, or a control: ``"continued"``, ``"scratch"``.
        seed: of the tree.
        relaxation: ``"efcn"``, or ``"lcn>efcn"`` for stages; None for the constrained network.
        parent: identity of the segment that it starts from; None for one that starts from an initialisation.
        parent_iteration: optimizer steps of the parent after which it leaves it; None likewise.
        switch_epoch: when it leaves, on the trunk's clock, in epochs; None likewise.
        first_step: optimizer steps that its network was trained before.
        iterations: its own length in optimizer steps.
        iterations_per_epoch: optimizer steps per epoch.
        settings: what it is trained on, how, and what happens to the network first, as ``segment.json`` has it: ``task``, ``settings`` and
            ``transition``.
        noise: which order of batches; 0 for the one that the seed itself gives.
    """

    id: str
    title: str
    kind: str
    seed: int
    relaxation: str | None
    parent: str | None
    parent_iteration: int | None
    switch_epoch: float | None
    first_step: int
    iterations: int
    iterations_per_epoch: int
    settings: Mapping[str, Any] = _mapping()
    noise: int = 0

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {field.name: _plain(getattr(self, field.name)) for field in attrs.fields(SegmentNode)}


@attrs.frozen(kw_only=True)
class Event:
    """Something happened.

    Attributes:
        name: of the kind of event, ``"epoch_done"``.
        time: when it was told, in seconds since 1970, UTC.
    """

    name: ClassVar[str] = "event"
    time: float = attrs.field(factory=time.time)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; a segment is its identity."""
        return {"event": self.name, **{field.name: _plain(getattr(self, field.name)) for field in attrs.fields(type(self))}}


@attrs.frozen(kw_only=True)
class RunBegun(Event):
    """A process begins, or goes on with, a run. The first event.

    Attributes:
        run: identity of the run, the same whenever it is gone on with.
        path: the run directory, absolute.
        config: what is run, as ``config.toml`` has it: the settings under ``"run"``, options of components under their settings.
        environment: what ``run.json`` says: versions, machine, time and command of the first start.
        resumed: whether it goes on with what an earlier process began.
    """

    name: ClassVar[str] = "run_begun"
    run: str
    path: str
    config: Mapping[str, Any] = _mapping()
    environment: Mapping[str, Any] = _mapping()
    resumed: bool


@attrs.frozen(kw_only=True)
class SegmentsPlanned(Event):
    """The tree, as far as it is known; told again, whole, when a schedule finds a switch.

    Attributes:
        segments: parents first.
    """

    name: ClassVar[str] = "segments_planned"
    segments: tuple[SegmentNode, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; the one event that has the segments whole."""
        return {**super().to_json(), "segments": [segment.to_json() for segment in self.segments]}


@attrs.frozen(kw_only=True)
class SegmentEvent(Event):
    """Something happened in a segment.

    Attributes:
        segment: which.
        earlier: whether it happened in an earlier process.
    """

    segment: SegmentNode
    earlier: bool = False


@attrs.frozen(kw_only=True)
class SegmentStarted(SegmentEvent):
    """A segment begins to be trained, or goes on; its story begins (anew).

    Attributes:
        iteration: optimizer steps of it that are done; all that led to them follows, marked ``earlier``.
        epoch: the same in epochs.
        step: the same, counted from the birth of the network.
        worker: who trains it, in words (``"cuda:1"``, ``"node2, GPU 0"``); None where its workers do not say.
    """

    name: ClassVar[str] = "segment_started"
    iteration: int
    epoch: float
    step: int
    worker: str | None = None


@attrs.frozen(kw_only=True)
class EpochDone(SegmentEvent):
    """An epoch of a segment was trained; epoch 0 is the network as it starts, after the relaxation.

    Attributes:
        epoch: of the segment; a fraction where it ends within an epoch.
        iteration: optimizer steps of the segment.
        step: optimizer steps since the birth of the network: on this axis a branch begins where it left its parent.
        row: the row of the history: loss and scores, each where it was taken (``train_loss``, ``train_accuracy``, ``test_accuracy``, ...),
            ``learning_rate``, and what watched probes measured (``delta.mean``); None for a number that is not finite.
    """

    name: ClassVar[str] = "epoch_done"
    epoch: float
    iteration: int
    step: int
    row: Mapping[str, Any] = _mapping()

    @property
    def scalars(self) -> dict[str, float]:
        """The numbers of the row that are there, without the epoch."""
        return {key: value for key, value in self.row.items() if key != "epoch" and isinstance(value, int | float)}


@attrs.frozen(kw_only=True)
class Measured(SegmentEvent):
    """A probe measured the network of a segment, or did not.

    Attributes:
        probe: its name.
        moment: ``"start"`` or ``"end"`` of the segment; ``"average"`` for the average of its weights, at the end.
        step: optimizer steps since the birth of the network.
        values: what it found, by name; None for what is not measurable.
        units: of values (``"%"``, ``"nats"``), as far as they are known.
        note: why it was skipped, how it failed, or what it left changed; None where all is well.
    """

    name: ClassVar[str] = "measured"
    probe: str
    moment: str
    step: int
    values: Mapping[str, Any] = _mapping(factory=dict)
    units: Mapping[str, str] = _mapping(factory=dict)
    note: str | None = None

    @property
    def scalars(self) -> dict[str, float]:
        """The numbers that are there, as ``"delta.end.mean"`` is one."""
        return {f"{self.probe}.{self.moment}.{key}": value for key, value in self.values.items() if isinstance(value, int | float)}


@attrs.frozen(kw_only=True)
class SwitchFound(SegmentEvent):
    """The schedule found a moment to switch while a trunk was trained.

    Attributes:
        iteration: optimizer steps of the segment.
        epoch: the same in epochs.
    """

    name: ClassVar[str] = "switch_found"
    iteration: int
    epoch: float


@attrs.frozen(kw_only=True)
class SegmentFinished(SegmentEvent):
    """A segment is finished.

    Attributes:
        result: its entry of ``results.json``, without ``history`` and ``probe_details``.
    """

    name: ClassVar[str] = "segment_finished"
    result: Mapping[str, Any] = _mapping()


@attrs.frozen(kw_only=True)
class SegmentFailed(SegmentEvent):
    """A segment ended with an error.

    Attributes:
        error: in a line.
    """

    name: ClassVar[str] = "segment_failed"
    error: str


@attrs.frozen(kw_only=True)
class SegmentSkipped(SegmentEvent):
    """A segment cannot be trained, because its parent did not get there.

    Attributes:
        error: why, in a line.
    """

    name: ClassVar[str] = "segment_skipped"
    error: str


@attrs.frozen(kw_only=True)
class Warned(Event):
    """What the run says beside its results: a damaged file that is made again, a probe that failed, a switch that is not exact.

    Attributes:
        text: in a line.
        segment: where; None where it is about the run.
    """

    name: ClassVar[str] = "warned"
    text: str
    segment: SegmentNode | None = None


@attrs.frozen(kw_only=True)
class RunFinished(Event):
    """The process ends its work on the run. The last event.

    Attributes:
        status: ``"finished"``; ``"failed"`` where a segment did; ``"stopped"`` where it was asked to, and can be gone on with; ``"broken"``
            where the run itself ended with an error.
        results: path of ``results.json``.
        finished: identities of the segments that are.
        failed: by identity, the error.
        skipped: by identity, why.
    """

    name: ClassVar[str] = "run_finished"
    status: str
    results: str
    finished: tuple[str, ...] = ()
    failed: Mapping[str, str] = _mapping(factory=dict)
    skipped: Mapping[str, str] = _mapping(factory=dict)
