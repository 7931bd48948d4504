"""Finished runs as figures and pages look at them: branches by switch time, their seeds and their controls."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from anarch_core.config.stages import last_network
from anarch_core.errors import AnarchError, CheckpointError, RunError
from anarch_core.experiment.condition import condition
from anarch_core.experiment.record import Record
from anarch_core.experiment.results import Results
from anarch_core.experiment.segment_result import SegmentResult
from anarch_core.experiment.store import RunStore, SegmentStore
from anarch_core.files.reading import kind, read_text
from anarch_core.files.tables import read_table
from anarch_core.objective import Metric
from anarch_core.plugin.records import CONSTRAINED_NETWORK, ModelInfo
from anarch_core.plugin.registry import get_registry
from anarch_core.report.spread import Spread

if TYPE_CHECKING:
    import numpy as np


class NothingToDrawError(AnarchError):
    """The runs do not have what a figure shows; the message says what is missing."""


@attrs.frozen(kw_only=True)
class _Configured(Record):
    """What a report relies on of ``config.toml``."""

    run: Mapping[str, Any]


@attrs.frozen(kw_only=True)
class _Environment(Record):
    """What a report relies on of ``run.json``, where it is there at all."""

    later: ClassVar[Sequence[str]] = ("command", "versions", "samples")
    command: Sequence[str] = ()
    versions: Mapping[str, Any] = attrs.field(factory=dict)
    samples: Mapping[str, int] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True, slots=False)
class FinishedRun:
    """What a run directory holds.

    Attributes:
        results: of all segments that are finished.
        label: short name that tells it from the other runs of the same report.
        toml: text of the resolved configuration.
        settings: the same, parsed.
        environment: of ``run.json``.
        damaged: sentences on files of its segments that are not what was written.
    """

    results: Results
    label: str
    toml: str
    settings: Mapping[str, Any]
    environment: Mapping[str, Any]
    damaged: Sequence[str] = ()

    @classmethod
    def read(cls, path: Path, label: str = "") -> FinishedRun:
        """Read a run directory, also one whose run is still going on.

        Raises:
            RunError: there is no run in it, or it has no finished segment yet.
        """
        store = RunStore(path)
        if not store.results_file.exists():
            msg = f"{path} holds no results: there is no {store.results_file.name} in it; give the directory that 'anarch run' wrote"
            raise RunError(msg)
        results = Results.read(path)
        if not results.segments:
            msg = f"{path} has no finished segment yet (the run is {results.status!r}); there is nothing to report"
            raise RunError(msg)
        try:
            toml = read_text(store.config_file)
            settings = tomllib.loads(toml)
        except (ValueError, RecursionError) as error:
            msg = f"cannot read {store.config_file}: {error}"
            raise RunError(msg) from error
        environment = read_table(store.environment_file)
        _Configured.from_json(settings, store.config_file)
        _Environment.from_json(environment, store.environment_file)
        return cls(
            results=results,
            label=label or path.resolve().name,
            toml=toml,
            settings=settings,
            environment=environment,
            damaged=[text for segment in results.segments for text in _damaged(store.segment(segment.id))],
        )

    @functools.cached_property
    def constrained(self) -> str:
        """What sentences and legends call the network that it relaxes: ``"CNN"``, or as the record of its model says."""
        name = self.results.model.partition(":")[0]
        models = (info for info in get_registry().infos("model") if isinstance(info, ModelInfo))
        return next((info.called for info in models if info.name == name), CONSTRAINED_NETWORK)

    @property
    def metric(self) -> Metric:
        """The score that its networks are compared by: accuracy, unless its objective says otherwise."""
        return self.results.objective.metric

    @property
    def test_score(self) -> str:
        """The key of that score on the test set, as of histories: ``"test_accuracy"``."""
        return f"test_{self.metric.name}"

    def score_label(self, data: str = "test") -> str:
        """Of an axis with that score on some data: ``"test accuracy (%)"``."""
        return _labelled(f"{data} {self.metric.label}", self.metric.unit)

    def evaluated_on(self, probe: str) -> str:
        """The data that a probe takes scores on: ``"test"``, ``"training"`` or ``"validation"``; test where its details do not say."""
        found = (segment.details(probe, "end").get("data") for segment in self.results.segments)
        part = next((str(part) for part in found if part), "test")
        return "training" if part == "train" else part

    def loss_label(self, when: str = "") -> str:
        """Of an axis with the training loss, perhaps at some moment: ``"training loss at the switch (nats)"``."""
        objective = self.results.objective
        return _labelled(f"training {objective.loss_label}{f' {when}' if when else ''}", objective.loss_unit)

    @property
    def test_samples(self) -> int | None:
        """Size of the test set; None for runs of versions that did not write it down."""
        size: int | None = self.environment.get("samples", {}).get("test")
        return size

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of its finished segments."""
        return tuple(dict.fromkeys(segment.seed for segment in self.results.segments))

    def epochs_in_all(self, segment: SegmentResult) -> float:
        """How long a network was trained, with the time before it left the segment that it started from."""
        parents = {other.id: other for other in self.results.segments}
        parent = parents.get(segment.parent or "")
        if parent is None:
            return segment.epochs + (segment.switch_epoch or 0.0)
        left = (segment.parent_iteration or 0) / parent.iterations_per_epoch
        return segment.epochs + left + self.epochs_in_all(parent) - parent.epochs

    @property
    def trunk(self) -> tuple[SegmentResult, ...]:
        """The constrained network, one segment per seed."""
        return self.segments("trunk")

    def segments(self, kind: str, relaxation: str | None = None, *, noise: bool = False) -> tuple[SegmentResult, ...]:
        """Segments of a kind that did not diverge; of one relaxation if given.

        Those of the order of batches that the seed gives: one of another order is no further seed. ``noise`` for the others alone.
        """
        return tuple(
            segment
            for segment in self.results.segments
            if segment.kind == kind
            and (relaxation is None or segment.relaxation == relaxation)
            and not segment.diverged
            and bool(segment.noise) == noise
        )

    @property
    def series(self) -> tuple[Series, ...]:
        """Its relaxations."""
        names = dict.fromkeys(segment.relaxation for segment in self.segments("branch") if segment.relaxation is not None)
        return tuple(Series(run=self, relaxation=name) for name in names)

    def tensors(self, segment: SegmentResult, probe: str, moment: str) -> Mapping[str, np.ndarray[Any, Any]]:
        """Arrays that a probe kept at ``"start"`` or ``"end"``; empty where it kept none.

        Raises:
            CheckpointError: the file is damaged.
        """
        path = RunStore(self.results.path).segment(segment.id).probe_tensors(probe, moment)
        other = kind(path)
        if other is not None:
            msg = f"{path} is {other}; expected a file: resume the run, which makes it again"
            raise CheckpointError(msg)
        if not path.exists():
            return {}
        from safetensors.numpy import load_file

        from anarch_core.checkpoint.file import verify

        verify(path)
        arrays: dict[str, np.ndarray[Any, Any]] = load_file(path)
        return arrays


def _labelled(words: str, unit: str) -> str:
    return f"{words} ({unit})" if unit else words


def _damaged(files: SegmentStore) -> Iterator[str]:
    if files.result_file.exists():  # results.json may have been passed on alone
        for name, what in condition(files).wrong.items():
            yield f"{files.path / name} {what}; anarch resume {files.path.parents[1]} makes it again"


@attrs.frozen(kw_only=True)
class Series:
    """The branches of one relaxation in one run.

    Attributes:
        run: the run.
        relaxation: ``"efcn"``, or ``"lcn>efcn"`` for stages.
    """

    run: FinishedRun
    relaxation: str

    @property
    def branches(self) -> Mapping[float, tuple[SegmentResult, ...]]:
        """By epoch of the switch, ascending; a segment per seed."""
        return by_switch(self.run.segments("branch", self.relaxation))

    @property
    def continued(self) -> Mapping[float, tuple[SegmentResult, ...]]:
        """The controls that went on without a switch, likewise, where this relaxation has a branch."""
        controls = by_switch(self.run.segments("continued"))
        return {switch: controls[switch] for switch in self.branches if switch in controls}

    @property
    def gains(self) -> Mapping[float, Mapping[int, float]]:
        """By switch time and seed, branch less control in the test score, for every seed that has both."""
        key = self.run.test_score
        found = {}
        for switch, controls in self.continued.items():
            scores = {segment.seed: segment.score("final", key) for segment in controls}
            pairs = {segment.seed: (segment.score("final", key), scores.get(segment.seed)) for segment in self.branches[switch]}
            gains = {seed: branch - control for seed, (branch, control) in pairs.items() if branch is not None and control is not None}
            if gains:
                found[switch] = gains
        return found

    @property
    def scratch(self) -> tuple[SegmentResult, ...]:
        """The network that its branches end with from its default initialisation, a segment per seed; none for the constrained one."""
        return self.run.segments("scratch", last_network(self.relaxation, get_registry()))

    @property
    def name(self) -> str:
        """The relaxation, without the middle of a name that is too long for a legend."""
        return _short(self.relaxation, 30)

    def label(self, runs: Sequence[FinishedRun]) -> str:
        """Its name, with the run's where there are several."""
        return self.name if len(runs) == 1 else _short(f"{self.run.label}: {self.name}", 44)


def _short(text: str, letters: int) -> str:
    half = (letters - 1) // 2
    return text if len(text) <= letters else f"{text[:half]}…{text[-half:]}"


def by_switch(segments: Iterable[SegmentResult]) -> dict[float, tuple[SegmentResult, ...]]:
    """Group segments by the epoch of their switch, ascending."""
    found: dict[float, tuple[SegmentResult, ...]] = {}
    left = [(segment.switch_epoch, segment) for segment in segments if segment.switch_epoch is not None]
    for switch, segment in sorted(left, key=lambda pair: pair[0]):
        found[switch] = (*found.get(switch, ()), segment)
    return found


def all_series(runs: Sequence[FinishedRun]) -> tuple[Series, ...]:
    """The relaxations of all runs.

    Raises:
        NothingToDrawError: there are none.
    """
    found = tuple(series for run in runs for series in run.series)
    if not found:
        msg = "no branch is finished: the runs relax nothing, or stopped before the first branch ended"
        raise NothingToDrawError(msg)
    return found


def score(segments: Iterable[SegmentResult], moment: str, name: str) -> Spread | None:
    """Loss or score, as ``run.test_score``, at ``"start"`` or ``"final"``, over seeds."""
    return Spread.of(segment.score(moment, name) for segment in segments)


def probed(segments: Iterable[SegmentResult], probe: str, moment: str, scalar: str) -> Spread | None:
    """A probe's scalar at ``"start"`` or ``"end"``, over seeds; None where it was not measured."""
    return Spread.of(segment.scalars(probe, moment).get(scalar) for segment in segments)


def incomparable(series: Series, probe: str) -> bool:
    """Whether what a probe says of the shared part is in units of the relaxed networks alone, since weights were equal before."""
    moments = ("start", "end")
    return any("incomparable" in one.details(probe, at) for group in series.branches.values() for one in group for at in moments)


def require_probes(runs: Sequence[FinishedRun], *probes: str) -> None:
    """Refuse runs without branches, or without the results of a probe at the end of a branch.

    Raises:
        NothingToDrawError: the message says which probe to run.
    """
    all_series(runs)
    branches = [segment for run in runs for noise in (False, True) for segment in run.segments("branch", noise=noise)]
    for probe in probes:
        if not any("end" in segment.probes.get(probe, {}) for segment in branches):
            msg = f"the probe {probe} {why_missing(branches, probe)}"
            raise NothingToDrawError(msg)


def why_missing(segments: Iterable[SegmentResult], probe: str) -> str:
    """Why segments have no results of a probe, to follow its name: it failed, was skipped, or was not asked for."""
    notes = [note for segment in segments for note in segment.probe_notes.get(probe, {}).values()]
    return next(iter(sorted(notes, key=lambda note: not note.startswith("failed"))), f"was not run; run again with --probe {probe}")


def switches(run: FinishedRun) -> list[float]:
    """The epochs of all switches of a run, by relaxation."""
    return [switch for series in run.series for switch in series.branches]


def history(segments: Sequence[SegmentResult], name: str) -> Iterator[tuple[float, Spread]]:
    """(epoch since the segment's start, value over seeds) wherever it was measured."""
    values: dict[float, list[float]] = {}
    for segment in segments:
        for row in segment.history:
            epoch, value = row["epoch"], row.get(name)
            if epoch is not None and value is not None:
                values.setdefault(epoch, []).append(value)
    for epoch, found in sorted(values.items()):
        spread = Spread.of(found)
        if spread is not None:
            yield epoch, spread


def some(switches: Sequence[float], count: int) -> list[float]:
    """At most ``count`` of them, evenly spaced by rank, the first and the last among them."""
    if len(switches) <= count:
        return list(switches)
    return [switches[round(index * (len(switches) - 1) / (count - 1))] for index in range(count)]
