"""``results.json``: what a run found, and the table that sums it up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from anarch_core.errors import RunError
from anarch_core.experiment.store import RunStore
from anarch_core.experiment.summary import SummaryTable, summary
from anarch_core.files import read_json, write_json
from anarch_core.version import __version__

SCHEMA = "1.0"


@attrs.frozen(kw_only=True)
class Results:
    """What a run found so far; see ``docs/results.md`` for the fields of a segment.

    Attributes:
        path: the run directory.
        data: name of the data set.
        model: name of the constrained network.
        status: ``"running"``, ``"finished"``, ``"stopped"`` or ``"failed"`` (some segments failed, all others are done).
        segments: finished segments, parents first.
        failed: by identity, the segments that failed: ``{"title", "error"}``.
        skipped: by identity, the segments that could not start because of that: ``{"title", "error"}``.
        headlines: by probe, the scalars that are worth a column.
    """

    path: Path
    data: str
    model: str
    status: str
    segments: tuple[Mapping[str, Any], ...] = ()
    failed: Mapping[str, Mapping[str, str]] = attrs.field(factory=dict)
    skipped: Mapping[str, Mapping[str, str]] = attrs.field(factory=dict)
    headlines: Mapping[str, Sequence[str]] = attrs.field(factory=dict)

    @classmethod
    def read(cls, path: Path) -> Results:
        """Read the results in a run directory.

        Raises:
            RunError: there are none, or a newer version of anarch wrote them.
        """
        content = read_json(RunStore(path).results_file)
        schema = content.get("schema") if isinstance(content, dict) else None
        if not isinstance(schema, str) or schema.partition(".")[0] != SCHEMA.partition(".")[0]:
            msg = f"{RunStore(path).results_file} has schema {schema!r}, expected {SCHEMA!r}; use the version of anarch that wrote it"
            raise RunError(msg)
        known = {field.name for field in attrs.fields(cls)}
        values = {key: value for key, value in content.items() if key in known}
        return cls(**{**values, "path": path, "segments": tuple(content["segments"])})

    def write(self) -> None:
        """Replace ``results.json``."""
        record = {field.name: getattr(self, field.name) for field in attrs.fields(type(self)) if field.name not in ("path", "segments")}
        segments = [dict(segment) for segment in self.segments]
        write_json(RunStore(self.path).results_file, {"schema": SCHEMA, "anarch": __version__, **record, "segments": segments})

    def table(self) -> SummaryTable:
        """The summary, for ``rich.print``."""
        return SummaryTable(summary(self.segments, self.headlines))
