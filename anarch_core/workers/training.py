"""What a worker does, wherever it is: open what the segments of a run share, and train one after the other."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from anarch_core.config.run_config import RunConfig
from anarch_core.errors import Stopped
from anarch_core.experiment.store import RunStore
from anarch_core.segment.stopping import Stop
from anarch_core.workers.base import Outcome

if TYPE_CHECKING:
    from anarch_core.data.tensor_data import TensorData
    from anarch_core.experiment.context import RunContext
    from anarch_core.experiment.events import Event, Job


def open_context(config: RunConfig, store: RunStore, stop: Stop, source: Callable[[], TensorData] | None = None) -> RunContext:
    """What all segments of a run share, as this process sees it, with as many threads as the run says.

    Args:
        config: the run, complete, with a device of this process.
        store: where it writes.
        stop: whether it was asked to stop, which ends the loading.
        source: gives the data set, its inputs in the host's memory; it is loaded if not given.

    Raises:
        AnarchError: the data cannot be loaded, or a component does not take its options.
        Stopped: it was asked to stop.
    """
    import torch

    from anarch_core.experiment.context import RunContext
    from anarch_core.plugin.registry import get_registry

    torch.set_num_threads(config.threads or 1)
    with stop.at_once(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # who asks for it opens the same data and tells
        return RunContext.open(config, store, get_registry(), source)


def run_job(context: RunContext, job: Job, emit: Callable[[Event], None], stop: Stop) -> Outcome:
    """Train a segment; whatever it raises becomes part of the outcome."""
    from anarch_core.segment.execution import train_segment

    def told(event: Event) -> None:
        stop.check()
        with stop.later():
            emit(event)
        stop.check()

    identity = job.segment.id
    try:
        with stop.insisted():
            return Outcome(segment=identity, result=train_segment(context, job, told, stop))
    except Stopped:
        return Outcome(segment=identity)
    except BaseException as error:  # a plugin may raise anything, and the other segments must go on
        return Outcome.failed(identity, error)
