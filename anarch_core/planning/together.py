"""Whether several processes can train a segment together, each with a part of every relaxed layer; components say so themselves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from anarch_core.errors import ConfigError, SurgeryError
from anarch_core.experiment.context import RunContext
from anarch_core.planning.architecture import Architecture, network_name
from anarch_core.plugin.options import parse_spec
from anarch_core.plugin.records import ComponentInfo, OptimizerInfo, WorkersInfo
from anarch_core.relaxation.lattice import AbstractLatticeRelaxation
from anarch_core.relaxation.report import refusal_of
from anarch_core.relaxation.shared_out import why_not_shared_out
from anarch_core.sharding.imagined import Imagined


def require_together(context: RunContext) -> None:
    """Refuse components that need all of a network in one process, where several train a segment together.

    Raises:
        ConfigError: naming the first, and what to do.
    """
    config, registry, shards = context.config, context.registry, context.config.shards
    if shards == 1:
        return
    workers = cast(WorkersInfo, registry.find("workers", parse_spec(config.workers)[0]))
    if not workers.together:
        able = _listed(info for info in registry.infos("workers") if cast(WorkersInfo, info).together)
        msg = f"workers {config.workers!r} have one process train a segment, and shards is {shards}; use --workers {able}, or --shards 1"
        raise ConfigError(msg)
    optimizer = cast(OptimizerInfo, registry.find("optimizer", config.optimizer))
    if not optimizer.elementwise:
        able = _listed(info for info in registry.infos("optimizer") if cast(OptimizerInfo, info).elementwise)
        why = f"does not say that its steps are elementwise, as is needed where {shards} processes hold a layer together"
        msg = f"optimizer {config.optimizer!r} {why}; use --optimizer {able}, or --shards 1"
        raise ConfigError(msg)
    for what, probes in (("probe", context.probes), ("watched probe", context.watched)):
        for name in (name for name, probe in probes.items() if not probe.sharded):
            why = f"does not say that it measures networks that {shards} processes hold together"
            msg = f"{what} {name!r} {why}; leave it out, or use --shards 1"
            raise ConfigError(msg)


def obstacle(context: RunContext, architecture: Architecture) -> SurgeryError | None:
    """Why the relaxed layers of a network cannot be shared out among the processes of a run; None if they can."""
    shards = context.config.shards
    if shards == 1:
        return None
    for step in architecture.steps:
        if step.action == "project":
            continue
        relaxation = context.registry.create("relaxation", step.relaxation or "", step.options)
        if not isinstance(relaxation, AbstractLatticeRelaxation):
            why = "it is no relaxation of the lattice, and may mix output channels"
            return SurgeryError(f"{network_name(step)} cannot be shared out among {shards} processes: {why}; use --shards 1")
    imagined = Imagined(shards)
    found = {site.path: why_not_shared_out(part.relaxation, site, imagined) for part in architecture.parts for site in part.sites}
    reasons = {path: reason for path, reason in found.items() if reason is not None}
    return SurgeryError(refusal_of(reasons), paths=tuple(reasons)) if reasons else None


def _listed(infos: Iterable[ComponentInfo]) -> str:
    return " or ".join(info.name for info in infos)
