"""What came out of a segment: an entry of ``results.json``, and what is noted for it while the segment is trained."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from anarch_core.display import Displayed, Overview, Table
from anarch_core.errors import SurgeryError
from anarch_core.experiment.machines import Machine
from anarch_core.experiment.record import Record
from anarch_core.schedule import Moment

if TYPE_CHECKING:
    from anarch_core.relaxation.report import RelaxationReport

Scalars = Mapping[str, float | None]

EPOCHS, DIVERGED = "epochs", "diverged"
"""Why training ended, unless it was stopped early."""


class Scores(dict[str, float | None]):
    """Loss and scores of a network on the whole data, in evaluation mode, None where they are not finite.

    ``train_loss``, ``test_loss``, and for each score of the objective ``train_<score>`` and ``test_<score>``, as keys and as attributes.
    """

    required: ClassVar[Sequence[str]] = ("train_loss", "test_loss")

    def __getattr__(self, name: str) -> float | None:
        """A score by its name."""
        try:
            return self[name]
        except KeyError:
            msg = f"there is no score {name!r}; there are {', '.join(self)}"
            raise AttributeError(msg) from None


@attrs.frozen(kw_only=True)
class Exactness(Record):
    """How exactly a relaxed network began as the one it left.

    Attributes:
        error: largest deviation from the parent's output, over its largest output; None where nothing could be compared.
        tolerance: above it the relaxation is not called exact.
        exact: whether all errors are within it, or are rounding that the network amplifies; None where nothing could be compared.
        dtype: of the parameters.
        layers: the error of each relaxed layer by path, as for the whole.
        notes: sentences on what was not compared, and why.
    """

    later: ClassVar[Sequence[str]] = ("notes",)
    error: float | None
    tolerance: float
    exact: bool | None
    dtype: str
    layers: Mapping[str, float | None]
    notes: Sequence[str] = ()

    @classmethod
    def of(cls, report: RelaxationReport) -> Exactness:
        """What the report of a relaxation says, per layer and end to end.

        Raises:
            SurgeryError: an error is not finite, so the network is not the one that it left, nor anything to be trained.
        """
        layers = {layer.path: layer.error for layer in report.layers}
        bad = [path or "the network" for path, error in layers.items() if error is not None and not math.isfinite(error)]
        if bad or (report.error is not None and not math.isfinite(report.error)):
            where = f"of {', '.join(bad)} " if bad else ""
            msg = f"the outputs {where}are not finite after {report.relaxation}, so how far they are from the parent's is not known; "
            msg += "look at the numbers in the parent's snapshot, or use --precision float64"
            raise SurgeryError(msg, paths=tuple(bad))
        return cls(
            error=report.error, tolerance=report.tolerance, exact=report.exact, dtype=report.dtype, layers=layers, notes=report.notes
        )


@attrs.frozen(kw_only=True)
class Notes(Record):
    """What is noted while a segment is trained, kept in its resume file; see :class:`SegmentResult` for the attributes."""

    later: ClassVar[Sequence[str]] = ("machines",)
    start: Scores | None = None
    exactness: Exactness | None = None
    optimizer_state: dict[str, str] | None = None
    probes: dict[str, dict[str, dict[str, float | None]]] = attrs.field(factory=dict)
    probe_details: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    probe_notes: dict[str, dict[str, str]] = attrs.field(factory=dict)
    switches: list[int] = attrs.field(factory=list)
    machines: list[Machine] = attrs.field(factory=list)


@attrs.frozen(kw_only=True, repr=False)
class SegmentResult(Displayed, Record):
    """An entry of ``results.json``; ``docs/results.md`` is the schema.

    Attributes:
        id: digest of everything that decides which weights come out.
        kind: ``"trunk"``, ``"branch"``, ``"continued"`` or ``"scratch"``.
        seed: of initialisation, batch order and dropout.
        noise: of descent: which order of batches; 0 for the one that the seed itself gives.
        relaxation: ``"efcn"``, or ``"lcn>efcn"`` for stages; None for the constrained network.
        parent: identity of the segment it started from.
        parent_iteration: optimizer steps of the parent at which it left.
        switch_epoch: when it left, on the trunk's clock, in epochs; None for trunk and scratch.
        switch_iteration: the same in optimizer steps.
        epochs: its length.
        iterations_per_epoch: optimizer steps per epoch.
        parameters: numbers that are trained or could be.
        ended: why training did: ``"epochs"``, all were trained; ``"stopped early: …"`` with the reason; ``"diverged"``.
        average: scores of the average of the weights; None where none was taken.
        diverged_epoch: epoch whose training loss was not finite; None otherwise.
        final: scores at the end.
        start: scores after the transition.
        exactness: of the relaxation it began with; None without one.
        optimizer_state: by parameter, ``"carried"``, ``"reset"`` or ``"empty"``; None where nothing was to be carried over.
        probes: by probe and moment (``"start"``, ``"end"``, ``"average"``, between them as ``"5ep"`` after its start), its scalars.
        probe_details: likewise, what a probe reports beside them.
        probe_notes: likewise, why a probe was skipped or failed.
        switches: optimizer steps at which the schedule found a switch while a trunk was trained.
        machines: that trained it, in turn, and others that completed it later; none where an earlier version wrote it.
        seconds: wall time.
        history: one row per epoch, epoch 0 first.
    """

    later: ClassVar[Sequence[str]] = ("average", "ended", "machines", "noise")
    id: str
    kind: str
    seed: int
    relaxation: str | None
    parent: str | None
    parent_iteration: int | None
    switch_epoch: float | None
    switch_iteration: int | None
    epochs: float
    iterations_per_epoch: int
    parameters: int
    diverged_epoch: float | None
    final: Scores
    start: Scores
    exactness: Exactness | None
    optimizer_state: Mapping[str, str] | None
    probes: Mapping[str, Mapping[str, Scalars]]
    probe_details: Mapping[str, Mapping[str, Any]]
    probe_notes: Mapping[str, Mapping[str, str]]
    switches: Sequence[int]
    seconds: float
    history: Sequence[Mapping[str, float | None]]
    average: Scores | None = None
    machines: Sequence[Machine] = attrs.field(factory=list)
    noise: int = 0
    ended: str = attrs.field(default=attrs.Factory(lambda self: EPOCHS if self.diverged_epoch is None else DIVERGED, takes_self=True))

    @property
    def stopped_early(self) -> bool:
        """Whether training ended because a score had not improved."""
        return self.ended not in (EPOCHS, DIVERGED)

    def ended_before(self, iteration: int) -> str | None:
        """How training ended without coming to that optimizer step, as the end of a sentence; None if it came there."""
        if self.diverged:
            return f"diverged in epoch {self.diverged_epoch}"
        return self.ended if self.stopped_early and self.steps < iteration else None

    @property
    def steps(self) -> int:
        """The optimizer steps that were taken, fewer than were meant where training ended early."""
        last = self.history[-1]["epoch"] if self.history else None
        return round((last or 0) * self.iterations_per_epoch)

    @property
    def by_probe(self) -> set[str]:
        """The probes that measured it, or said why they did not."""
        return {*self.probes, *self.probe_notes}

    @property
    def moments_between(self) -> dict[str, float]:
        """Where probes measured it between its start and its end, as ``"5ep"``, ascending: in epochs after its start."""
        found = {moment for measured in self.probes.values() for moment in measured} - {"start", "end", "average"}
        epochs = {moment: Moment.parse(moment, self.iterations_per_epoch).epoch for moment in found}
        return dict(sorted(epochs.items(), key=lambda pair: pair[1]))

    def measured_at(self, probe: str, moments: Iterable[str]) -> bool:
        """Whether a probe measured it at all of these moments, or said why it did not."""
        return {*moments} <= {*self.probes.get(probe, {}), *self.probe_notes.get(probe, {})}

    @property
    def diverged(self) -> bool:
        """Whether training ended because the loss was not finite."""
        return self.diverged_epoch is not None

    def overview(self) -> Overview:
        """Its scores and what probes measured; shown by ``print`` and by notebooks."""
        facts = [
            ("seed", f"{self.seed}, noise {self.noise}" if self.noise else str(self.seed)),
            ("epochs", f"{self.epochs:g}" if self.switch_epoch is None else f"{self.epochs:g}, from epoch {self.switch_epoch:g} on"),
            ("parameters", f"{self.parameters:,}"),
        ]
        if self.ended != EPOCHS:
            facts.append(("ended", self.ended if self.diverged_epoch is None else f"diverged in epoch {self.diverged_epoch:g}"))
        if self.exactness is not None:
            error = "not compared" if self.exactness.error is None else f"differs from its parent by {self.exactness.error:.1e}"
            facts.append(("exactness", error))
        hosts = dict.fromkeys(machine.host for machine in self.machines)
        if len(hosts) > 1:
            facts.append(("machines", ", then ".join(hosts)))
        scores: dict[str, Scores] = {"start": self.start, "end": self.final}
        moments = ["start", *self.moments_between, "end"]
        if self.average is not None:
            scores["average"] = self.average
            moments.append("average")
        rows = [[name, *(_in_short(scores.get(moment, Scores()).get(name)) for moment in moments)] for name in self.final]
        for probe, measured in self.probes.items():
            names = dict.fromkeys(name for scalars in measured.values() for name in scalars)
            rows += [[f"{probe}.{name}", *(_in_short(measured.get(moment, {}).get(name)) for moment in moments)] for name in names]
        return Overview(
            title=f"Segment {self.id}: {' '.join(filter(None, (self.kind, self.relaxation)))}",
            facts=facts,
            tables=[Table(headings=["", *moments], rows=rows)],
            notes=[f"{probe} at the {moment}: {note}" for probe, notes in self.probe_notes.items() for moment, note in notes.items()],
        )

    def score(self, moment: str, name: str) -> float | None:
        """One of the :class:`Scores` at ``"start"``, ``"final"`` or of the ``"average"``, as ``"test_accuracy"``; None without."""
        scores: Scores | None = getattr(self, moment)
        return None if scores is None else scores.get(name)

    def scalars(self, probe: str, moment: str) -> Scalars:
        """Scalars of a probe at ``"start"``, at the ``"end"`` or of the ``"average"``; empty where it did not measure."""
        return self.probes.get(probe, {}).get(moment, {})

    def probe_failed(self, probe: str, moment: str) -> bool:
        """Whether a probe was asked for numbers at ``"start"`` or ``"end"`` and raised an error."""
        return self.probe_notes.get(probe, {}).get(moment, "").startswith("failed")

    def details(self, probe: str, moment: str) -> Mapping[str, Any]:
        """What a probe reported beside its scalars; empty where it did not measure."""
        found: Mapping[str, Any] = self.probe_details.get(probe, {}).get(moment, {})
        return found


def _in_short(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
