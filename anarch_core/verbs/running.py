"""``anarch run``, ``anarch plan`` and ``anarch resume`` from Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from anarch_core.experiment.results import Results
from anarch_core.plugin.registry import Registry, get_registry
from anarch_core.running import runner
from anarch_core.running.planned import planned
from anarch_core.running.progress import AbstractProgress
from anarch_core.running.showing import ProgressStyle
from anarch_core.verbs.given import import_string
from anarch_core.verbs.settings import Config, Settings, resolved, takes_settings

if TYPE_CHECKING:
    from anarch_core.config.values import Capture
    from anarch_core.observer.base import AbstractObserver
    from anarch_core.planning.run_plan import RunPlan


@takes_settings
def run(
    config: Config = (),
    *,
    registry: Registry | None = None,
    progress: ProgressStyle | AbstractProgress = "auto",
    observers: Sequence[AbstractObserver] = (),
    **settings: Unpack[Settings],
) -> Results:
    """Train a network, relax it at the switch times, train on, probe, and compare: ``anarch run``.

    ``run(relax="lcn", seeds="0-2")`` is ``anarch run --relax lcn --seeds 0-2``: what is not given comes from files of settings, a recipe,
    the recommendations of the data set and the defaults, in this order. The same call again goes on with an unfinished run, and gives the
    results of a finished one.

    Args:
        config: files of settings, as of ``--config``; or a complete ``RunConfig``, which is run as it stands, beside ``out`` alone.
        registry: where components are looked up, the installed plugins by default. With one of the caller's own, everything is trained in
            this process, one segment at a time.
        progress: what to show: ``"auto"`` for bars on a terminal, one display in a notebook and lines elsewhere; ``"bars"``,
            ``"notebook"``, ``"lines"``, ``"silent"``; or an object that is told.
        observers: objects that are told what happens, beside the components that ``observe`` names.
        **settings: by name, as the flags of `anarch run`; ``help()`` lists them.

    Returns:
        the results; segments that failed are in ``failed``, the others went on without them.

    Raises:
        ConfigError: the configuration is not usable; the message has close matches for a setting that is unknown.
        UnknownComponentError: no plugin provides a name.
        RunError: the directory is in use or holds another experiment.
        SurgeryError: a relaxation refuses a layer.
        OutOfMemoryError: the memory does not suffice.
        InterruptedRunError: the kernel was interrupted, or SIGINT, SIGTERM or SIGHUP came; the state is saved.
    """
    complete = resolved(config, settings, registry or get_registry())
    return runner.run(complete, out=complete.directory, registry=registry, progress=progress, observers=observers)


@takes_settings
def plan(config: Config = (), *, timed: bool = True, registry: Registry | None = None, **settings: Unpack[Settings]) -> RunPlan:
    """Find out what :func:`run` with the same arguments would do, without training or writing anything: ``anarch plan``.

    Args:
        config: as for :func:`run`.
        timed: take some optimizer steps to measure their time.
        registry: where components are looked up, the installed plugins by default.
        **settings: by name, as the flags of `anarch run`; ``help()`` lists them.

    Raises:
        AnarchError: as for :func:`run`; the data cannot be loaded, or the network not be built.
    """
    return planned(resolved(config, settings, registry or get_registry()), timed=timed, registry=registry)


def resume(
    out: Path | str,
    *,
    model: str | Callable[..., Any] | None = None,
    data: str | Callable[..., Any] | Any = None,
    workers: str | None = None,
    jobs: int | None = None,
    shards: int | None = None,
    device: str | None = None,
    threads: int | None = None,
    capture: Capture | None = None,
    data_root: Path | str | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    progress: ProgressStyle | AbstractProgress = "auto",
    observers: Sequence[AbstractObserver] = (),
) -> Results:
    """Finish what was interrupted, on this machine or another: ``anarch resume``.

    Args:
        out: the run directory.
        model: that it was started with; needed where it is a function of yours, which no file's word is taken for.
        data: likewise.
        workers: who trains it from here on; None, here and below, for what the run was asked for last.
        jobs: how many segments at once.
        shards: how many processes train a segment together.
        device: on which device.
        threads: on how many processor threads each.
        capture: whether training steps on a card are CUDA graphs.
        data_root: where the data are found.
        options: those of the workers, by component, as for :func:`run`.
        progress: as for :func:`run`.
        observers: likewise.

    Raises:
        RunError: there is no run in it, or one of another model or other data.
        ConfigError: its model or its data are a factory, and the argument does not name it; or it cannot be run in that way here.
    """
    machine = {
        "workers": workers,
        "jobs": jobs,
        "shards": shards,
        "device": device,
        "threads": threads,
        "capture": capture,
        "data_root": data_root,
        "options": options,
    }
    return runner.resume(
        out,
        model=import_string(model, "model"),
        data=import_string(data, "data"),
        machine={name: value for name, value in machine.items() if value is not None},
        progress=progress,
        observers=observers,
    )
