"""Event files for TensorBoard: a run for each segment, on the clock of its network, so that a branch begins where it left its parent."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anarch_core.errors import MissingDependencyError, RunError
from anarch_core.observer import (
    AbstractObserver,
    EpochDone,
    Event,
    Measured,
    RunBegun,
    SegmentFailed,
    SegmentFinished,
    SegmentNode,
    SegmentSkipped,
    SegmentsPlanned,
    SegmentStarted,
    flattened,
)

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

OWN_FILES = "events.out.tfevents.*"


class TensorboardObserver(AbstractObserver):
    """Writes each segment's story to ``tensorboard/<title>``.

    A story that begins anew, as when a run is gone on with, is written anew, whole: there is no step that comes twice, and none is missing
    that a killed process had not written.

    Scalars are those of the history (``train_loss`` is the tag ``loss/train``) and of probes (``probe/<name>/<value>``); what a segment
    is, is a text, and its settings and final scores a row of the hyperparameters.
    """

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        _writer_class()
        self._folder = Path()
        self._names: dict[str, str] = {}
        self._writers: dict[str, SummaryWriter] = {}

    def observe(self, event: Event) -> None:
        """Write what has a place in TensorBoard."""
        if isinstance(event, RunBegun):
            self._folder = Path(event.path) / "tensorboard"
        elif isinstance(event, SegmentsPlanned):
            self._names |= _names(event.segments)
        elif isinstance(event, SegmentStarted):
            self._begin(event.segment)
        elif isinstance(event, EpochDone | Measured):
            writer = self._writers[event.segment.id]
            for tag, value in _tagged(event).items():
                writer.add_scalar(tag, value, event.step, walltime=event.time)
        elif isinstance(event, SegmentFinished):
            self._summarise(event)
            self._end(event.segment)
        elif isinstance(event, SegmentFailed | SegmentSkipped):
            self._end(event.segment)

    def close(self) -> None:
        """Close the files of segments that go on another time."""
        for writer in self._writers.values():
            writer.close()

    def _begin(self, segment: SegmentNode) -> None:
        self._end(segment)
        folder = self._folder / self._names[segment.id]
        if self._folder.is_symlink() or folder.is_symlink():
            msg = f"{folder} is, or is in, a link, and nothing is written outside the run directory; put the folder itself in its place"
            raise RunError(msg)
        for old in folder.glob(OWN_FILES):
            old.unlink()
        writer = self._writers[segment.id] = _writer_class()(folder, flush_secs=5)
        writer.add_text("segment", f"```json\n{json.dumps(segment.to_json(), indent=2)}\n```", segment.first_step)

    def _end(self, segment: SegmentNode) -> None:
        writer = self._writers.pop(segment.id, None)
        if writer is not None:
            writer.close()

    def _summarise(self, event: SegmentFinished) -> None:
        """The row of the segment in the table of hyperparameters, which TensorBoard takes from the run that they are written to."""
        from torch.utils.tensorboard import summary

        segment, writer = event.segment, self._writers[event.segment.id]
        settings = {"kind": segment.kind, "seed": segment.seed, "relaxation": segment.relaxation, "switch_epoch": segment.switch_epoch}
        given = {key: value for key, value in {**settings, **flattened(segment.settings)}.items() if value is not None}
        final = {f"final/{key}": value for key, value in event.result["final"].items() if isinstance(value, int | float)}
        row: Any = summary.hparams
        files: Any = writer.file_writer
        for record in row({key: value if isinstance(value, int | float) else str(value) for key, value in given.items()}, final):
            files.add_summary(record)
        for tag, value in final.items():
            writer.add_scalar(tag, value, segment.first_step + segment.iterations, walltime=event.time)


def _writer_class() -> type[SummaryWriter]:
    """PyTorch's writer.

    Raises:
        MissingDependencyError: the package tensorboard is missing or broken.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        msg = f"observer 'tensorboard' needs the package tensorboard ({error}); pip install 'anarch[tensorboard]'"
        raise MissingDependencyError(msg) from error
    return SummaryWriter


def _names(segments: tuple[SegmentNode, ...]) -> dict[str, str]:
    """Folders of segments: their titles, and where two have one their identities as well."""
    times = Counter(segment.title for segment in segments)
    return {
        segment.id: (segment.title if times[segment.title] == 1 else f"{segment.title} {segment.id}").replace("/", "-")
        for segment in segments
    }


def _tagged(event: EpochDone | Measured) -> dict[str, float]:
    """Scalars with tags that TensorBoard sorts into groups: the loss of all parts, a score of all parts, a probe."""
    if isinstance(event, Measured):
        return {f"probe/{event.probe}/{key}": value for key, value in event.values.items() if value is not None}
    tags = {}
    for key, value in event.scalars.items():
        part, _, score = key.partition("_")
        if part in ("train", "validation", "test"):
            key = f"{score}/{part}"
        elif "." in key:
            key = f"watched/{key.replace('.', '/')}"
        tags[key] = value
    return tags
