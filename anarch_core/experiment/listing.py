"""What runs lie below a folder, at a glance: their files are read and nothing is believed of them, nor changed."""

from __future__ import annotations

import datetime
import math
import os
import platform
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from anarch_core.errors import RunError
from anarch_core.experiment.results import ObjectiveRecord
from anarch_core.experiment.segments import title
from anarch_core.experiment.store import RunStore
from anarch_core.files.locks import LOCK
from anarch_core.files.reading import read_text
from anarch_core.files.tables import read_table

ACCURACY = attrs.asdict(ObjectiveRecord().metric)
"""The score of runs whose results do not say which they have."""


@attrs.frozen(kw_only=True)
class Best:
    """The best test score among the finished segments of a run.

    Attributes:
        score: its name.
        value: in its unit.
        unit: may be empty.
        digits: behind the point that are worth showing.
        segment: a short name of the segment.
    """

    score: str
    value: float
    unit: str
    digits: int
    segment: str

    def __str__(self) -> str:
        """As in ``"81.3 %"``."""
        return f"{self.value:.{self.digits}f} {self.unit}".rstrip()


@attrs.frozen(kw_only=True)
class Listed:
    """A run directory at a glance; what could not be read is None or empty.

    Attributes:
        path: the directory.
        data: name of the data set.
        model: name of the network.
        relaxations: and staged paths.
        seeds: of its trees.
        state: ``"running"``, ``"finished"``, ``"stopped"``, ``"failed"`` or ``"damaged"``.
        finished: segments that are done.
        planned: segments that are asked for, as far as known.
        failed: segments that failed, or could not start because of that.
        best: test score.
        written: when something was found last, or the run began.
        bytes: that its files take.
        problem: what is wrong with its files, in a sentence.
    """

    path: Path
    data: str | None = None
    model: str | None = None
    relaxations: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    state: str = "stopped"
    finished: int = 0
    planned: int | None = None
    failed: int = 0
    best: Best | None = None
    written: datetime.datetime | None = None
    bytes: int = 0
    problem: str | None = None


def runs_below(folder: Path) -> Iterator[Listed]:
    """The run directories in a folder and below, or the folder itself; links are not followed, hidden folders not looked into."""
    for place, folders, files in os.walk(folder):
        found = look_at(Path(place)) if {"config.toml", "results.json"} & {*files} else None
        if found is not None:
            yield found
        folders[:] = [] if found else sorted(name for name in folders if not name.startswith("."))


def look_at(path: Path) -> Listed | None:
    """A run directory at a glance; None for a folder that is none."""
    store = RunStore(path)
    config, no_config = _config(store)
    results, no_results = _results(store)
    if not config and not results and not (path / "segments").is_dir():
        return None
    segments = [one for one in _list(results.get("segments")) if isinstance(one, dict)]
    begun = store.results_file.exists() or any(path.glob("segments/*/result.json"))
    problem = no_config or (no_results if begun else None)
    return Listed(
        path=path,
        data=_text(config.get("data")) or _text(results.get("data")),
        model=_text(config.get("model")) or _text(results.get("model")),
        relaxations=tuple(str(name) for name in [*_list(config.get("relax")), *_list(config.get("path"))]),
        seeds=tuple(seed for seed in _list(config.get("seeds")) if isinstance(seed, int)),
        state="damaged" if problem else _state(store, _text(results.get("status"))),
        finished=len(segments),
        planned=results.get("planned") if isinstance(results.get("planned"), int) else None,
        failed=len(_table(results.get("failed"))) + len(_table(results.get("skipped"))),
        best=_best(results, segments),
        written=_written(store),
        bytes=sum(_sizes(path)),
        problem=problem,
    )


def _config(store: RunStore) -> tuple[Mapping[str, Any], str | None]:
    """The settings, or what is wrong with their file."""
    try:
        content = tomllib.loads(read_text(store.config_file)).get("run")
    except (RunError, ValueError, RecursionError) as error:
        return {}, str(error) if isinstance(error, RunError) else f"{store.config_file} is no TOML: {error}"
    return (content, None) if isinstance(content, dict) else ({}, f"{store.config_file} has no table [run]")


def _results(store: RunStore) -> tuple[Mapping[str, Any], str | None]:
    """The results, or what is wrong with their file."""
    try:
        found = read_table(store.results_file)
    except RunError as error:
        return {}, str(error)
    return (found, None) if "segments" in found and "status" in found else ({}, f"{store.results_file} holds no results of a run")


def _state(store: RunStore, status: str | None) -> str:
    """What the results say, unless the process that wrote them is gone."""
    if status in ("finished", "failed"):
        return status
    return "running" if status != "stopped" and _held(store) else "stopped"


def _held(store: RunStore) -> bool:
    """Whether the process that took the directory last is alive. Its lock is not tried, which a run that starts would find taken."""
    try:
        process = int(read_text(store.path / LOCK, at_most=20))
        host = read_table(store.environment_file).get("host") if store.environment_file.exists() else platform.node()
    except (RunError, ValueError):
        return False
    if host != platform.node():
        return True  # who can say
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return process > 0


def _best(results: Mapping[str, Any], segments: list[dict[str, Any]]) -> Best | None:
    scores = _list(_table(results.get("objective")).get("scores"))
    score = ACCURACY | (scores[0] if scores and isinstance(scores[0], dict) else {})
    found = [(_table(segment.get("final")).get(f"test_{score['name']}"), segment) for segment in segments]
    known = [(value, segment) for value, segment in found if isinstance(value, int | float) and math.isfinite(value)]
    if not known:
        return None
    value, segment = (max if score["higher_is_better"] else min)(known, key=lambda pair: pair[0])
    digits = score["digits"] if isinstance(score["digits"], int) else 1
    return Best(score=str(score["name"]), value=value, unit=str(score["unit"]), digits=digits, segment=_title(segment))


def _title(segment: Mapping[str, Any]) -> str:
    epoch = segment.get("switch_epoch")
    switch = f"{epoch:g}ep" if isinstance(epoch, int | float) else None
    return title(str(segment.get("kind")), _text(segment.get("relaxation")), switch, segment.get("seed"), segment.get("noise") or 0)


def _written(store: RunStore) -> datetime.datetime | None:
    for file in (store.results_file, store.config_file):
        try:
            return datetime.datetime.fromtimestamp(file.stat().st_mtime, datetime.UTC)
        except (OSError, ValueError, OverflowError):
            continue
    return None


def _sizes(folder: Path) -> Iterator[int]:
    for place, _, files in os.walk(folder):
        for name in files:
            try:
                yield os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118  # quick: there may be thousands
            except OSError:
                continue


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
