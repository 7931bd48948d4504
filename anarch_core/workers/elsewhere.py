"""Working for a run on another machine that has its directory: what the run could not make certain of there."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from anarch_core.config.run_config import RunConfig
from anarch_core.errors import RunError
from anarch_core.experiment.store import RunStore
from anarch_core.files.tables import read_table
from anarch_core.segment.stopping import Stop
from anarch_core.workers.likeness import differences, versions
from anarch_core.workers.training import open_context

if TYPE_CHECKING:
    from anarch_core.experiment.context import RunContext
    from anarch_core.planning.need import Need


def open_elsewhere(config: RunConfig, store: RunStore, stop: Stop, need: Need, begun_with: Mapping[str, str]) -> RunContext:
    """What all segments of a run share, on a machine that was found to have the packages, the device, the memory and the data.

    Args:
        config: the run, complete, with the device as the user says it.
        store: its directory.
        stop: whether it was asked to stop, which ends the loading.
        need: what training takes.
        begun_with: :func:`~anarch_core.workers.versions` where the run was asked for.

    Raises:
        ConfigError: the device is not there.
        OutOfMemoryError: the memory does not suffice.
        RunError: versions or plugins are others than where the run was asked for, or the data are not those that it began with.
        AnarchError: the data cannot be loaded, or a component does not take its options.
        Stopped: it was asked to stop.
    """
    from anarch_core.cards import one_device
    from anarch_core.machine import available_bytes

    if (why := differences(begun_with, versions(config))) is not None:
        msg = f"{platform.node()} {why}; let all machines use the same environment"
        raise RunError(msg)
    config = attrs.evolve(config, device=one_device(config.device))
    context = open_context(config, store, stop)
    need.require_room(available_bytes(context.device), config.device)
    if read_table(store.environment_file).get("data_sha256") != context.data.digest():
        msg = f"the data set {config.data!r} is another one here than the one that the run began with; let all machines see the same files"
        raise RunError(msg)
    return context
