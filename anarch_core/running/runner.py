"""Runs, from their settings or from their directory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import attrs

from anarch_core.cards import cards, in_use
from anarch_core.config.resolution import complete, factories, resolve
from anarch_core.config.run_config import RunConfig
from anarch_core.errors import ConfigError, RunError, Stopped
from anarch_core.experiment.placement import looked_into_on, trained_elsewhere
from anarch_core.experiment.results import Results
from anarch_core.experiment.store import RunStore
from anarch_core.plugin.factories import of_this_process
from anarch_core.plugin.registry import Registry, get_registry
from anarch_core.running.observing import observers as named_observers
from anarch_core.running.preparation import taken
from anarch_core.running.progress import AbstractProgress
from anarch_core.running.same_experiment import asked_before, same_experiment
from anarch_core.running.showing import ProgressStyle, make_progress
from anarch_core.running.walk import Walk
from anarch_core.segment.stopping import InterruptedRunError, Stop
from anarch_core.sharding.launch import Launch
from anarch_core.workers.base import AbstractWorkers
from anarch_core.workers.in_process import InProcess
from anarch_core.workers.together import Together, follow

if TYPE_CHECKING:
    from anarch_core.observer.base import AbstractObserver


NOTHING: Mapping[str, Any] = MappingProxyType({})


def run(
    config: RunConfig,
    *,
    out: Path | str | None = None,
    registry: Registry | None = None,
    progress: ProgressStyle | AbstractProgress = "auto",
    observers: Sequence[AbstractObserver] = (),
) -> Results:
    """Train every segment of a run that is not done yet.

    A directory that holds the same experiment is gone on with, to the same bytes (on a CPU) as if it had never been left. It may be asked
    for more, other seeds, switch times, relaxations, controls or probes: only what is missing is trained or measured.

    Args:
        config: the run.
        out: the run directory, by default the configuration's.
        registry: where components are looked up, the installed plugins by default. With one of the caller's own, everything is trained in
            this process, one segment at a time.
        progress: what to show.
        observers: to be told what happens, beside those that the configuration names.

    Returns:
        the results; segments that failed are in ``failed``, the others went on without them.

    Raises:
        ConfigError: the configuration cannot be run here.
        RunError: the directory is in use or holds another experiment.
        SurgeryError: a relaxation refuses a layer.
        OutOfMemoryError: the memory does not suffice.
        InterruptedRunError: SIGINT, SIGTERM or SIGHUP; the state is saved.
    """
    own_registry = registry is not None
    registry = registry or get_registry()
    config = complete(config, registry)
    out = out or config.out
    if out is None:
        msg = "no run directory was given; pass out=..."
        raise RunError(msg)
    launch = Launch.of_this_process()
    if launch is not None:
        launch.require(config.shards, config.device)
        if launch.rank:
            follow(launch, config)
    store, to_name = RunStore(Path(out)), factories({"model": config.model, "data": config.data}, registry)
    with _progress(progress) as shown:
        stop = Stop(notice=lambda: shown.say("stopping: saving the state of what is under way"))
        with stop.on_signals(), taken(store):
            try:
                before = asked_before(store, registry)
                config = attrs.evolve(same_experiment(config, before, store), out=store.path)
                config, workers = employed(config, registry, here=own_registry)
                told = [*named_observers(config, registry), *observers]
                with in_use(looked_into_on(config, registry)):
                    results = Walk(config, before, store, registry, shown, stop, told, workers).run()
            except Stopped:
                raise InterruptedRunError.of(store, "stopped at once, what was saved is there", to_name) from None
            if stop.asked is not None:
                raise InterruptedRunError.of(store, "stopped, nothing is lost", to_name)
            return results


def resume(
    out: Path | str,
    *,
    model: str | None = None,
    data: str | None = None,
    machine: Mapping[str, Any] = NOTHING,
    progress: ProgressStyle | AbstractProgress = "auto",
    observers: Sequence[AbstractObserver] = (),
) -> Results:
    """Go on with the run in a directory; see :func:`run`.

    Args:
        out: the run directory.
        model: that it was started with; needed where it is a factory, ``package.module:name``, which no file's word is taken for.
        data: likewise.
        machine: settings that are to be others from here on, of :data:`~anarch_core.config.files.MACHINE`; ``"options"`` those of workers.
        progress: what to show.
        observers: to be told what happens, beside those that the run names.

    Raises:
        RunError: there is no run in it, or one of another model or other data.
        ConfigError: its model or its data are a factory, and the argument does not name it; or it cannot be run in that way here.
    """
    store = RunStore(Path(out))
    if not store.config_file.exists():
        msg = f"{out} holds no run: there is no {store.config_file.name} in it"
        raise RunError(msg)
    named = {name: given for name, given in (("model", model), ("data", data)) if given is not None}
    config = resolve({**machine, **named}, [store.config_file])
    if "jobs" not in machine:
        config = attrs.evolve(config, jobs=None)  # as they were, if that still is the same: see same_experiment()
    return run(config, out=out, progress=progress, observers=observers)


def employed(config: RunConfig, registry: Registry, *, here: bool) -> tuple[RunConfig, AbstractWorkers]:
    """The workers of a run, and its configuration as they take it.

    Args:
        config: the run.
        registry: where the workers are looked up.
        here: whether it can be trained in this process alone, whatever its model and data.

    Raises:
        ConfigError: it can be trained in this process alone, and its workers are elsewhere; or the device is not there, or is a card of
            this machine, and the workers are elsewhere.
        AnarchError: the workers do not take their options, or cannot work here.
    """
    from anarch_core.experiment.context import create

    elsewhere = trained_elsewhere(config, registry)
    device = looked_into_on(config, registry)
    if not elsewhere:
        config = attrs.evolve(config, device=device)
    if (launch := Launch.of_this_process()) is not None:
        return attrs.evolve(config, jobs=1, device=launch.device(config.device)), Together()
    own = [spec for spec in (config.model or "", config.data) if of_this_process(spec)]
    if not (here or own):
        return config, create(registry, "workers", config.workers, config)
    if elsewhere:
        what = f"{own[0]!r}, which is known to this process alone" if own else "components that this process alone knows"
        msg = f"workers {config.workers!r} train on other machines, but the run has {what}; put it into a module, or use workers 'local'"
        raise ConfigError(msg)
    if config.shards > 1:
        what = f"{own[0]!r} is" if own else "its components are"
        msg = f"{config.shards} processes are to train together, but {what} known to this one alone; put it into a module, or use shards 1"
        raise ConfigError(msg)
    places = cards(config.device)
    return attrs.evolve(config, jobs=1, device=places[0].name if len(places) > 1 else config.device), InProcess()


def only_here(config: RunConfig) -> bool:
    """Whether no other process can have the model or the data: functions of a script or a notebook, or objects."""
    return any(map(of_this_process, (config.model or "", config.data)))


@contextlib.contextmanager
def _progress(progress: ProgressStyle | AbstractProgress) -> Iterator[AbstractProgress]:
    if isinstance(progress, AbstractProgress):
        yield progress
        return
    with make_progress(progress) as shown:
        yield shown
