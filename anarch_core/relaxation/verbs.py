"""The public verbs: relax a network, project it back, measure how far it drifted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import attrs
import torch
from torch import nn

from anarch_core.constraint.parts import Drift
from anarch_core.errors import NoEffectWarning, SurgeryError, warn
from anarch_core.layers.base import Cost, RelaxedLayer
from anarch_core.machine import require_memory
from anarch_core.network import copied
from anarch_core.plugin.blame import answering
from anarch_core.plugin.registry import Registry, get_registry
from anarch_core.relaxation.base import AbstractRelaxation, Site
from anarch_core.relaxation.copying import copy_with, replace
from anarch_core.relaxation.exactness import checked
from anarch_core.relaxation.lattice import CONVOLUTIONS
from anarch_core.relaxation.materialise import convolution_of
from anarch_core.relaxation.measured import measured_drift
from anarch_core.relaxation.passes import keep_passes_told
from anarch_core.relaxation.report import AppliedRelaxation, DriftReport, LayerReport, RelaxationReport, Relaxed, refusal_of
from anarch_core.relaxation.selection import Selection
from anarch_core.relaxation.shared_out import lifted, narrowed, why_not_shared_out
from anarch_core.relaxation.surgery import candidates, owner, select
from anarch_core.sharding.shards import Shards

__all__ = [
    "AppliedRelaxation",
    "DriftReport",
    "LayerReport",
    "RelaxationReport",
    "Relaxed",
    "applied_relaxations",
    "drift",
    "initialise_relaxed",
    "plan",
    "project",
    "reapply",
    "relax",
]


def plan(
    model: nn.Module,
    relaxation: str = "efcn",
    *,
    example_input: Any,
    layers: str | Sequence[str] = "*",
    options: Any = None,
    materialise: bool = False,
    registry: Registry | None = None,
) -> RelaxationReport:
    """What :func:`relax` would do, without allocating anything. Layers that it would refuse are in ``refused``."""
    found = Selection.of(model, relaxation, example_input, layers, options, registry or get_registry(), materialise=materialise)
    return found.report()


@torch.inference_mode(False)
def relax(
    model: nn.Module,
    relaxation: str = "efcn",
    *,
    example_input: Any,
    layers: str | Sequence[str] = "*",
    options: Any = None,
    materialise: bool = False,
    check: bool = True,
    shards: Shards | None = None,
    registry: Registry | None = None,
) -> Relaxed:
    """Embed a network exactly into a larger family.

    Args:
        model: any network; it is not changed. Train or eval mode, any dtype, any device.
        relaxation: name of a registered relaxation.
        example_input: what the network is called with: a tensor with a batch dimension, a tuple of arguments, or a dictionary of them. It
            sets the input size of every relaxed layer.
        layers: module paths, or shell patterns over them (``"features.*"``); one that starts with ``!`` excludes.
        options: of the relaxation, a mapping or an instance of its option class.
        materialise: accept convolutions whose weight is computed (weight norm, spectral norm, pruning, weight standardisation): the weight
            of this moment becomes a free one. The result equals the parent now; what computed the weight is given up, and the report says
            so.
        check: run the example input through the relaxed network in the mode the network is in, and compare every layer while it is called,
            and the outputs. Without it, a layer that the network does not call as an attribute goes unnoticed.
        shards: processes among which the output channels of the relaxed layers are shared out; all of them call this in step, with equal
            networks, and each makes its part alone. New in 1.3.
        registry: where names are looked up; all installed plugins by default.

    Returns:
        the relaxed network with its report and parameter map.

    Raises:
        SurgeryError: a chosen layer cannot be relaxed exactly; every such layer is named with the reason. Or the relaxed network does not
            run, or does not use its layers as the parent does.
        OutOfMemoryError: the relaxed layers would not fit; nothing was allocated.
        UnknownComponentError: no plugin provides the relaxation.
        OptionError: an option is unknown or out of range.
    """
    registry = registry or get_registry()
    found = Selection.of(model, relaxation, example_input, layers, options, registry, materialise=materialise)
    report = found.report()
    if report.refused:
        msg = f"{report.refusal}. Exclude such layers by pattern, e.g. layers=['*', '!{next(iter(report.refused))}']"
        raise SurgeryError(msg, paths=tuple(report.refused))
    _require_shareable(found.relaxation, found.sites, shards)
    if not found.sites:
        warn(f"{relaxation} found no layer to relax in {type(model).__name__}{report.why_none}", NoEffectWarning)
    if report.layers:
        _require_room(found.relaxation, found.sites, shards, relaxation)

    layers_made = {site.path: lifted(found.relaxation, site, shards) for site in found.sites}
    new = keep_passes_told(copy_with(model, {path: (found.paths[path], layer) for path, layer in layers_made.items()}))
    new.anarch_relaxations = (*applied_relaxations(model), found.applied(registry))  # type: ignore[assignment]
    if check:
        report = checked(report, found, model, new, example_input)
    return Relaxed(
        model=new,
        parent=model,
        report=report,
        parameter_map=_parameter_map(model, new, list(layers_made)),
        sites={site.path: site for site in found.sites},
        relaxation=found.relaxation,
        materialised=tuple(found.materialised),
    )


@torch.inference_mode(False)
def project(model: nn.Module, *, layers: str | Sequence[str] = "*") -> nn.Module:
    """The constrained network nearest to a relaxed one. A layer goes back all the way, with what was relaxed inside of it before.

    Args:
        model: a network with relaxed layers; it is not changed.
        layers: shell patterns over module paths, as for :func:`relax`.

    Raises:
        SurgeryError: there is no relaxed layer, or a pattern matches none.
    """
    paths = candidates(model, (RelaxedLayer,))
    if not paths:
        msg = f"this {type(model).__name__} has no relaxed layer to project"
        raise SurgeryError(msg)
    chosen = select(paths, layers)
    projected = {path: _constrained(model.get_submodule(path)) for path in chosen}
    new = keep_passes_told(copy_with(model, {path: (paths[path], layer) for path, layer in projected.items()}))
    left = []
    for applied in applied_relaxations(model):
        kept = {path: shape for path, shape in applied.layers.items() if path not in chosen and owner(path, chosen) is None}
        if kept or applied.materialised:
            calls = {path: count for path, count in applied.calls.items() if path in kept}
            left.append(attrs.evolve(applied, layers=kept, calls=calls))
    new.anarch_relaxations = tuple(left)  # type: ignore[assignment]
    return new


def _constrained(layer: nn.Module) -> nn.Module:
    """The constrained module nearest to a relaxed layer. What is nearest in a subspace is found by way of one that contains it."""
    module: nn.Module = layer.project()  # type: ignore[operator]
    for path, paths in candidates(module, (RelaxedLayer,)).items():
        module = replace(module, paths, _constrained(module.get_submodule(path)))
    return module


@torch.inference_mode(False)
def drift(model: nn.Module, reference: nn.Module | None = None) -> DriftReport:
    """How far a relaxed network is from its constrained family.

    Args:
        model: a network with relaxed layers.
        reference: the same network at an earlier moment.

    Raises:
        SurgeryError: there is no relaxed layer, or the reference has other layers.
    """
    layers: dict[str, Drift] = {}
    for path in candidates(model, (RelaxedLayer,)):
        start = None
        if reference is not None:
            try:
                start = reference.get_submodule(path)
            except AttributeError:
                msg = f"the reference has no layer {path}; it must be the same network at an earlier moment"
                raise SurgeryError(msg, paths=(path,)) from None
        layers[path] = measured_drift(cast(RelaxedLayer, model.get_submodule(path)), path, start)
    if not layers:
        msg = f"this {type(model).__name__} has no relaxed layer, so nothing can have drifted"
        raise SurgeryError(msg)
    return DriftReport(layers=layers)


@torch.inference_mode(False)
def reapply(
    base: nn.Module, applied: Sequence[AppliedRelaxation], *, shards: Shards | None = None, registry: Registry | None = None
) -> nn.Module:
    """Give a base network the layers of a relaxed one, as when a checkpoint is loaded. Weights are lifted from the base.

    Args:
        base: the network; never changed.
        applied: the relaxations.
        shards: as for :func:`relax`.
        registry: where names are looked up; all installed plugins by default.

    Raises:
        SurgeryError: the base network has no such layer, or it cannot be relaxed.
        OutOfMemoryError: the relaxed layers would not fit.
    """
    registry = registry or get_registry()
    model = base
    for record in applied:
        relaxation = registry.create("relaxation", record.name, record.options)
        model = _materialised(model, record.materialised)
        paths = candidates(model, relaxation.targets)
        new: dict[str, tuple[Sequence[str], nn.Module]] = {}
        sites = []
        for path, shape in record.layers.items():
            if path not in paths:
                msg = f"the network has no layer {path!r} that {record.name} could relax; is it the same architecture?"
                raise SurgeryError(msg, paths=(path,))
            module, calls = model.get_submodule(path), record.calls.get(path, 1)
            site = Site(path=path, module=module, input_shape=tuple(shape), output_shape=(), calls=calls)
            reason = answering(relaxation.refusal, str, type(None))(site)
            if reason is not None:
                raise SurgeryError(refusal_of({path: reason}), paths=(path,))
            sites.append(site)
        if sites:
            _require_shareable(relaxation, sites, shards)
            _require_room(relaxation, sites, shards, record.name)
        for site in sites:
            new[site.path] = (paths[site.path], lifted(relaxation, site, shards))
        model = copy_with(model, new)
    model = keep_passes_told(model if model is not base else copied(base))
    model.anarch_relaxations = (*applied_relaxations(base), *applied)  # type: ignore[assignment]
    return model


def applied_relaxations(model: nn.Module) -> tuple[AppliedRelaxation, ...]:
    """The relaxations a network went through, oldest first; empty for one that never was relaxed."""
    return tuple(getattr(model, "anarch_relaxations", ()))


def initialise_relaxed(model: nn.Module) -> None:
    """Give every relaxed layer its default initialisation, from the global random state: the scratch control."""
    for path in candidates(model, (RelaxedLayer,)):
        model.get_submodule(path).reset_parameters()  # type: ignore[operator]


def _require_shareable(relaxation: AbstractRelaxation, sites: Sequence[Site], shards: Shards | None) -> None:
    """Refuse layers that processes cannot hold together."""
    if shards is None:
        return
    reasons = {site.path: reason for site in sites if (reason := why_not_shared_out(relaxation, site, shards)) is not None}
    if reasons:
        raise SurgeryError(refusal_of(reasons), paths=tuple(reasons))


def _require_room(relaxation: AbstractRelaxation, sites: Sequence[Site], shards: Shards | None, name: str) -> None:
    """Refuse layers that would not fit, of which this process makes all, or its part."""
    cost = answering(relaxation.cost, Cost)
    needed = sum(cost(site if shards is None else narrowed(site, shards)).bytes for site in sites)
    part = "" if shards is None else f", a part in each of {shards.size} processes"
    require_memory(needed, _device(sites), f"{name} of {len(sites)} layer(s){part}")


def _device(sites: Sequence[Site]) -> torch.device:
    """Where the layers are."""
    return next((parameter.device for site in sites for parameter in site.module.parameters()), torch.device("cpu"))


def _materialised(model: nn.Module, layers: Mapping[str, tuple[int, ...]]) -> nn.Module:
    """The network with plain convolutions in place of some that compute their weight; itself where there are none."""
    plain: dict[str, tuple[Sequence[str], nn.Module]] = {}
    paths = candidates(model, CONVOLUTIONS)
    for path, shape in layers.items():
        found = convolution_of(model.get_submodule(path), shape) if path in paths else "the network has no such convolution"
        if isinstance(found, str):
            raise SurgeryError(refusal_of({path: found}), paths=(path,))
        plain[path] = (paths[path], found)
    return copy_with(model, plain) if plain else model


def _parameter_map(old: nn.Module, new: nn.Module, replaced: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """A parameter lives on under its name, or in all parameters of the layer that took its layer's place."""
    names = [name for name, _ in new.named_parameters()]
    heirs: dict[str, tuple[str, ...]] = {}
    for name, _ in old.named_parameters():
        layer = owner(name, replaced)
        prefix = f"{layer}." if layer else ""
        heirs[name] = (name,) if name in names else tuple(other for other in names if layer is not None and other.startswith(prefix))
    return heirs
