"""The interface of workers: who trains the segments of a run, in this process, in others, or on other machines."""

from __future__ import annotations

import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from anarch_core.cards import Place
from anarch_core.errors import AnarchError, LostProcessError, PluginError, one_line
from anarch_core.experiment.segment_result import SegmentResult
from anarch_core.segment.stopping import Stop

if TYPE_CHECKING:
    from anarch_core.experiment.context import RunContext
    from anarch_core.experiment.events import Event, Job
    from anarch_core.planning.need import Need


@attrs.frozen(kw_only=True)
class Outcome:
    """How a job ended: with a result, with an error, or, where it was asked to stop, with neither.

    Attributes:
        segment: identity.
        result: what came out; None if it failed or was stopped.
        error: why it failed, or how its worker was lost.
        trace: where in the program, for what is not the user's mistake.
        lost: whether its worker is gone. That says nothing about the segment, which goes on elsewhere from where its state was saved.
    """

    segment: str
    result: SegmentResult | None = None
    error: str | None = None
    trace: str | None = None
    lost: bool = False

    @classmethod
    def failed(cls, segment: str, error: BaseException) -> Outcome:
        """It raised something; its worker is lost where that tells of another process that is gone."""
        trace = "".join(traceback.format_exception(error)) if isinstance(error, PluginError) or not isinstance(error, AnarchError) else None
        text = str(error) if isinstance(error, AnarchError) else one_line(error)
        return cls(segment=segment, error=text, trace=trace, lost=isinstance(error, LostProcessError))


@attrs.frozen(kw_only=True)
class Crew:
    """The run that workers work for.

    Attributes:
        context: what its segments share. Its data are in this machine's memory where several processes are to train, so that this one takes
            no room on their cards, and where the workers are elsewhere (:attr:`~anarch_core.plugin.WorkersInfo.remote`). There
            ``context.config.device`` is the device as the user says it, which is for each worker to find.
        on_event: to be told what happens in a segment, in the thread that calls :meth:`AbstractWorkers.wait`.
        say: to be told a line for the user.
        stop: whether the run was asked to stop; the run then calls :meth:`AbstractWorkers.stop`.
        need: what training takes.
        segments: how many are planned by now; a schedule may find more.
        places: of the processes that are to train on this machine at once, in the order in which they are filled, as its memory and the
            user allow; a single one is this process. None where the workers are elsewhere.
    """

    context: RunContext
    on_event: Callable[[Event], None]
    say: Callable[[str], None]
    stop: Stop
    need: Need
    segments: int
    places: Sequence[Place] = ()


class AbstractWorkers(ABC):
    """Trains segments, several at once where it can.

    A run makes an instance before anything is loaded, and opens it when it is certain that it starts. All methods are called in one thread.

    Args:
        options: an instance of the record's option class, or None.

    Raises:
        AnarchError: nothing can be trained here: a package or a command is missing, or nobody is where the options say.
    """

    def __init__(self, options: Any = None) -> None:
        self.options = options

    @abstractmethod
    def open(self, crew: Crew) -> None:
        """Begin to work for a run."""

    @property
    @abstractmethod
    def capacity(self) -> int:
        """Jobs that may be under way at once, by now; 0 while there is nobody, for which a run waits."""

    def adopt(self, known: Collection[str]) -> Collection[str]:
        """Which segments are still being trained by those who worked for an earlier process of the run.

        Asked once, before anything is submitted; the outcomes of these are given by :meth:`wait`, like those of jobs. Their events are told
        from ``"begun"`` on, where they can be had; what is told of a segment without it is left for when its result is there.

        Args:
            known: identities of the segments of the run.
        """
        return ()

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Hand over a job; at most :attr:`capacity` may be under way."""

    @abstractmethod
    def wait(self) -> Sequence[Outcome]:
        """Go on until something happens, a second at most; the jobs that ended meanwhile, possibly none. Nothing may be under way."""

    @abstractmethod
    def stop(self) -> None:
        """Ask all jobs to save their state and end; :meth:`wait` goes on giving their outcomes."""

    @abstractmethod
    def close(self, *, at_once: bool = False) -> None:
        """End whatever was started; ``at_once`` what has a job, too, which loses what it has not saved.

        Called once more after that, and where :meth:`open` was not called, or failed.
        """
