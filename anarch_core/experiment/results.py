"""``results.json``: what a run found, and the table that sums it up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import attrs

from anarch_core.display import Displayed, Overview, Table, frame
from anarch_core.errors import RunError
from anarch_core.experiment.kinds import mixture
from anarch_core.experiment.record import Record
from anarch_core.experiment.rows import IDENTITY, history_rows, segment_rows
from anarch_core.experiment.segment_result import SegmentResult
from anarch_core.experiment.store import RunStore
from anarch_core.experiment.summary import SummaryTable, summary
from anarch_core.files.tables import in_short, read_table, require_seal, sealed, write_json
from anarch_core.objective.base import AbstractObjective, Metric
from anarch_core.version import __version__

if TYPE_CHECKING:
    from pandas import DataFrame

SCHEMA = "1.1"
UNSEALED = "1.0"
"""Earlier files have no digest."""


@attrs.frozen(kw_only=True)
class Unfinished(Record):
    """A segment without a result.

    Attributes:
        title: a short name for people.
        error: why it has none.
    """

    title: str
    error: str


@attrs.frozen(kw_only=True)
class MetricRecord(Record):
    """A score that networks were judged by; see :class:`anarch_core.objective.Metric`."""

    name: str
    label: str
    unit: str
    higher_is_better: bool
    digits: int


@attrs.frozen(kw_only=True)
class ObjectiveRecord(Record):
    """What the networks were trained for.

    Attributes:
        name: of the objective.
        loss_label: how axes call its loss.
        loss_unit: ``"nats"``, or empty.
        scores: beside the loss; the first is what runs are compared by.
    """

    name: str = "cross-entropy"
    loss_label: str = "loss"
    loss_unit: str = "nats"
    scores: Sequence[MetricRecord] = attrs.field(
        factory=lambda: [MetricRecord(name="accuracy", label="accuracy", unit="%", higher_is_better=True, digits=1)]
    )

    @classmethod
    def of(cls, name: str, objective: AbstractObjective) -> ObjectiveRecord:
        """What an objective says of itself."""
        scores = [MetricRecord(**attrs.asdict(metric)) for metric in objective.metrics]
        return cls(name=name, loss_label=objective.loss_label, loss_unit=objective.loss_unit, scores=scores)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The scores."""
        return tuple(Metric(**attrs.asdict(score)) for score in self.scores)

    @property
    def metric(self) -> Metric:
        """The score that runs are compared by."""
        return self.metrics[0]


@attrs.frozen(kw_only=True, repr=False)
class Results(Displayed):
    """What a run found so far.

    Attributes:
        path: the run directory.
        data: name of the data set.
        model: name of the constrained network.
        objective: what the networks were trained for, and are judged by.
        status: ``"running"``, ``"finished"``, ``"stopped"`` or ``"failed"`` (some segments failed, all others are done).
        segments: finished segments, parents first.
        failed: by identity, the segments that failed.
        skipped: by identity, the segments that could not start because of that.
        headlines: by probe, the scalars that are worth a column.
        planned: segments of the run, as far as its schedule knows them; None in files of earlier versions.
    """

    path: Path
    data: str
    model: str
    objective: ObjectiveRecord = ObjectiveRecord()
    status: str
    segments: tuple[SegmentResult, ...] = ()
    failed: Mapping[str, Unfinished] = attrs.field(factory=dict)
    skipped: Mapping[str, Unfinished] = attrs.field(factory=dict)
    headlines: Mapping[str, Sequence[str]] = attrs.field(factory=dict)
    planned: int | None = None

    @classmethod
    def read(cls, path: Path | str) -> Results:
        """Read the results in a run directory.

        Raises:
            RunError: there are none, they were altered, or a newer version of anarch wrote them.
        """
        file = RunStore(Path(path)).results_file
        table = read_table(file)
        schema = table.get("schema")
        if not isinstance(schema, str) or schema.partition(".")[0] != SCHEMA.partition(".")[0]:
            msg = f"{file} has schema {in_short(schema)}, expected {SCHEMA!r}; use the version of anarch that wrote it"
            raise RunError(msg)
        if schema != UNSEALED or "digest" in table:
            require_seal(table, file)
        content = _Content.from_json(table, file)
        return cls(path=Path(path), **{**attrs.asdict(content, recurse=False), "segments": tuple(content.segments)})

    def write(self) -> None:
        """Replace ``results.json``."""
        record = attrs.asdict(self, filter=lambda field, _: field.name not in ("path", "segments"))
        segments = [segment.to_json() for segment in self.segments]
        table = {"schema": SCHEMA, "anarch": __version__, **record, "segments": segments}
        write_json(RunStore(self.path).results_file, sealed(table))

    def table(self) -> SummaryTable:
        """The summary, for ``rich.print``."""
        return SummaryTable(summary(self.segments, self.headlines, self.objective.metric))

    def overview(self) -> Overview:
        """The summary, and which segments have no result; shown by ``print`` and by notebooks."""
        found = summary(self.segments, self.headlines, self.objective.metric)
        table = Table(headings=found.headings, rows=found.lines, caption=found.caption, texts=2, strong=found.best)
        unfinished = (("failed", self.failed), ("skipped", self.skipped))
        mixed = mixture(self.segments)
        return Overview(
            title=f"Results of {self.path}: {self.status}",
            facts=[("data", self.data), ("model", self.model), ("segments", str(len(self.segments)))],
            tables=[table] if self.segments else [],
            notes=[
                *(f"{segment.title} {what}: {segment.error}" for what, segments in unfinished for segment in segments.values()),
                *([] if mixed is None else [mixed]),
            ],
        )

    def to_dataframe(self) -> DataFrame:
        """A row for each finished segment, parents first.

        Columns: identity (``id``, ``kind``, ``seed``, ``relaxation``, ``switch_epoch``), sizes, times and machines; scores as
        ``start.test_loss`` and ``final.test_loss``; what probes measured as ``delta.end.shared``, missing where a probe was not run.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        return frame(segment_rows(self.segments), IDENTITY)

    def history_dataframe(self) -> DataFrame:
        """A row for each epoch of each finished segment, epoch 0 first: identity as in :meth:`to_dataframe`, and the history.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        return frame(history_rows(self.segments), IDENTITY)


@attrs.frozen(kw_only=True)
class _Content(Record):
    """What ``results.json`` holds of :class:`Results`."""

    later: ClassVar[Sequence[str]] = ("objective", "planned")

    data: str
    model: str
    objective: ObjectiveRecord = ObjectiveRecord()
    status: str
    failed: Mapping[str, Unfinished]
    skipped: Mapping[str, Unfinished]
    headlines: Mapping[str, Sequence[str]]
    planned: int | None = None
    segments: Sequence[SegmentResult]
