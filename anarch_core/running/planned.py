"""What a run would do in its directory, and whether it would be refused there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anarch_core.config.run_config import RunConfig
from anarch_core.experiment.store import RunStore
from anarch_core.plugin.registry import Registry, get_registry
from anarch_core.running.same_experiment import asked_before, same_experiment

if TYPE_CHECKING:
    from anarch_core.planning.run_plan import RunPlan


def planned(config: RunConfig, *, timed: bool = True, registry: Registry | None = None) -> RunPlan:
    """Find out what a run would do, without training or writing anything.

    Args:
        config: the run, complete.
        timed: take some optimizer steps to measure their time.
        registry: where components are looked up, the installed plugins by default.

    Raises:
        RunError: its directory holds another experiment, or something else than a run.
        AnarchError: the data cannot be loaded, or the network not be built.
    """
    from anarch_core.planning.plan import plan_run

    store = RunStore(config.directory)
    same_experiment(config, asked_before(store, registry or get_registry()), store)
    return plan_run(config, timed=timed, registry=registry)
