"""``results.json``: what a run found, and the table that sums it up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from anarch_core.errors import RunError
from anarch_core.experiment.segment_result import SegmentResult
from anarch_core.experiment.store import RunStore
from anarch_core.experiment.summary import SummaryTable, summary
from anarch_core.files import read_json, write_json
from anarch_core.version import __version__

SCHEMA = "1.0"


@attrs.frozen(kw_only=True)
class Unfinished:
    """A segment without a result.

    Attributes:
        title: a short name for people.
        error: why it has none.
    """

    title: str
    error: str


@attrs.frozen(kw_only=True)
class Results:
    """What a run found so far.

    Attributes:
        path: the run directory.
        data: name of the data set.
        model: name of the constrained network.
        status: ``"running"``, ``"finished"``, ``"stopped"`` or ``"failed"`` (some segments failed, all others are done).
        segments: finished segments, parents first.
        failed: by identity, the segments that failed.
        skipped: by identity, the segments that could not start because of that.
        headlines: by probe, the scalars that are worth a column.
    """

    path: Path
    data: str
    model: str
    status: str
    segments: tuple[SegmentResult, ...] = ()
    failed: Mapping[str, Unfinished] = attrs.field(factory=dict)
    skipped: Mapping[str, Unfinished] = attrs.field(factory=dict)
    headlines: Mapping[str, Sequence[str]] = attrs.field(factory=dict)

    @classmethod
    def read(cls, path: Path) -> Results:
        """Read the results in a run directory.

        Raises:
            RunError: there are none, or a newer version of anarch wrote them.
        """
        file = RunStore(path).results_file
        content = read_json(file)
        schema = content.get("schema") if isinstance(content, dict) else None
        if not isinstance(schema, str) or schema.partition(".")[0] != SCHEMA.partition(".")[0]:
            msg = f"{file} has schema {schema!r}, expected {SCHEMA!r}; use the version of anarch that wrote it"
            raise RunError(msg)
        try:
            return cls(
                path=path,
                data=content["data"],
                model=content["model"],
                status=content["status"],
                segments=tuple(SegmentResult.from_json(table, file) for table in content["segments"]),
                failed={key: Unfinished(**table) for key, table in content["failed"].items()},
                skipped={key: Unfinished(**table) for key, table in content["skipped"].items()},
                headlines=content["headlines"],
            )
        except (AttributeError, KeyError, TypeError) as error:
            msg = f"{file} is not what anarch wrote ({type(error).__name__}: {error}); delete it and resume the run, which writes it again"
            raise RunError(msg) from error

    def write(self) -> None:
        """Replace ``results.json``."""
        record = attrs.asdict(self, filter=lambda field, _: field.name not in ("path", "segments"))
        segments = [segment.to_json() for segment in self.segments]
        write_json(RunStore(self.path).results_file, {"schema": SCHEMA, "anarch": __version__, **record, "segments": segments})

    def table(self) -> SummaryTable:
        """The summary, for ``rich.print``."""
        return SummaryTable(summary(self.segments, self.headlines))
