"""The runs in a folder, as one thing to look at."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from anarch_core.display import Displayed, Overview, Table, frame
from anarch_core.errors import ConfigError
from anarch_core.experiment.listing import Listed, runs_below
from anarch_core.experiment.results import Results
from anarch_core.machine import human_bytes

if TYPE_CHECKING:
    from pandas import DataFrame

HEADINGS = ("run", "data", "model", "relaxations", "seeds", "state", "segments", "best test score", "of", "written", "size")


@attrs.frozen(repr=False)
class Runs(Displayed):
    """The runs in a folder and below, those written last at the end; iterated over, they give :class:`Listed` ones.

    Attributes:
        folder: where they lie.
        found: each at a glance.
    """

    folder: Path
    found: tuple[Listed, ...]

    def __iter__(self) -> Iterator[Listed]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    def overview(self) -> Overview:
        """A line for each; shown by ``print`` and by notebooks."""
        problems = [f"damaged: {run.problem}" for run in self.found if run.problem]
        table = Table(headings=HEADINGS, rows=[cells(run) for run in self.found])
        return Overview(title=f"{len(self.found)} runs in {self.folder}", tables=[table] if self.found else [], notes=problems)

    def to_dataframe(self) -> DataFrame:
        """A row for each run, with the names of :class:`Listed`; the best test score as ``best.value`` and its like.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        return frame(map(_flat, self.found), ["path"])

    def results(self) -> list[Results]:
        """The results of those that have finished segments and are not damaged."""
        return [Results.read(run.path) for run in self.found if run.finished and not run.problem]


def runs(folder: Path | str = "runs") -> Runs:
    """The runs in a folder and below: ``anarch runs``.

    Args:
        folder: the one that they lie in, or that of a single run.

    Raises:
        ConfigError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        msg = f"there is no folder {folder}; name the one that runs are in, or start one by anarch run"
        raise ConfigError(msg)
    found = sorted(runs_below(folder), key=lambda run: (run.written is not None and run.written.timestamp(), str(run.path)))
    return Runs(folder, tuple(found))


def cells(run: Listed) -> list[str]:
    """A run as texts under :data:`HEADINGS`."""
    counts = f"{run.finished} of {run.planned}" if run.planned is not None and run.planned != run.finished else str(run.finished)
    return [
        str(run.path),
        run.data or "?",
        run.model or "?",
        ", ".join(run.relaxations),
        spans(run.seeds),
        run.state,
        f"{counts}, {run.failed} failed" if run.failed else counts,
        "" if run.best is None else f"{run.best.score} {run.best}",
        "" if run.best is None else run.best.segment,
        "" if run.written is None else f"{run.written.astimezone():%Y-%m-%d %H:%M}",
        human_bytes(run.bytes),
    ]


def record(run: Listed) -> dict[str, Any]:
    """A run, JSON-ready."""
    written = None if run.written is None else run.written.isoformat(timespec="seconds")
    return {**attrs.asdict(run), "path": str(run.path), "written": written}


def spans(numbers: Iterable[int]) -> str:
    """``0, 1, 2, 5`` as ``"0-2,5"``."""
    groups = itertools.groupby(enumerate(sorted({*numbers})), key=lambda pair: pair[1] - pair[0])
    runs = [[number for _, number in group] for _, group in groups]
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs)


def _flat(run: Listed) -> dict[str, Any]:
    row = attrs.asdict(run, recurse=False)
    best: Any = row.pop("best")
    return row | ({} if best is None else {f"best.{name}": value for name, value in attrs.asdict(best).items()})
