"""Which layers a relaxation replaces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from inspect import get_annotations
from typing import Any, cast

import attrs
import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from anarch_core.errors import one_line
from anarch_core.layers.base import Cost
from anarch_core.plugin.blame import answering
from anarch_core.plugin.hookspecs import API_VERSION
from anarch_core.plugin.options import to_dict
from anarch_core.plugin.records import RelaxationInfo
from anarch_core.plugin.registry import Registry
from anarch_core.relaxation.base import AbstractRelaxation, Site
from anarch_core.relaxation.fingerprint import fingerprint
from anarch_core.relaxation.materialise import made_of
from anarch_core.relaxation.outputs import rounding
from anarch_core.relaxation.report import AppliedRelaxation, LayerReport, RelaxationReport
from anarch_core.relaxation.surgery import candidates, check_replaceable, is_target, owner, select, site_or_reason, traced_site
from anarch_core.relaxation.trace import Manner, Trace, trace, trace_as
from anarch_core.relaxation.watch import shared_parameters


@attrs.frozen(kw_only=True)
class Selection:
    """The layers a relaxation will replace, those it refuses, and those it has nothing to do for.

    Attributes:
        info: record of the relaxation.
        relaxation: with its options.
        paths: of every layer it might replace: canonical path -> all paths.
        sites: what is replaced.
        refused: path -> reason.
        idle: path -> reason, for chosen layers that it has nothing to do for.
        traces: passes of the example; more than one where some layers are called in another mode only.
        materialised: path -> what computed the weight of a layer until now, for sites whose module is a plain convolution in its place.
        kept: chosen layers that this very relaxation made already, and that stay as they are while others are replaced.
    """

    info: RelaxationInfo
    relaxation: AbstractRelaxation
    paths: Mapping[str, Sequence[str]]
    sites: Sequence[Site]
    refused: Mapping[str, str]
    idle: Mapping[str, str]
    traces: Sequence[Trace]
    materialised: Mapping[str, str]
    kept: Sequence[str] = ()

    @classmethod
    def of(
        cls,
        model: nn.Module,
        name: str,
        example_input: Any,
        layers: str | Sequence[str],
        options: Any,
        registry: Registry,
        *,
        materialise: bool = False,
    ) -> Selection:
        """Trace the network and ask the relaxation about every chosen layer."""
        check_replaceable(model)
        info = cast(RelaxationInfo, registry.find("relaxation", name))
        relaxation = registry.create("relaxation", name, options)
        paths = candidates(model, relaxation.targets)
        chosen = select(paths, layers)
        made = _made_by(model, info, relaxation, registry)
        kept = [path for path in chosen if path in made]
        if len(kept) == len(chosen):
            kept = []  # asked for nothing else, it answers for these
        chosen = [path for path in chosen if path not in kept]
        traces = _traces(model, list(paths), chosen, example_input, relaxation.sized)
        ties = shared_parameters(model)
        sites = list[Site]()
        refused, idle, materialised = dict[str, str](), dict[str, str](), dict[str, str]()
        for path in chosen:
            site = traced_site(model, path, traces, relaxation)
            whole = next((each for each in sites if owner(path, paths[each.path]) is not None), None)
            nothing = answering(relaxation.idle, str, type(None))(site) if is_target(site.module, relaxation.targets) else None
            if whole is not None:  # it goes with the layer that it is a part of
                if nothing is None and not relaxation.sized and site.calls > whole.calls and owner(path, refused) is None:
                    refused[path] = _called_more_often(site, whole)
                continue
            if nothing is not None:
                idle[path] = nothing
                continue
            result = site_or_reason(site, traces, relaxation, aliases=paths[path], ties=ties, materialise=materialise)
            if isinstance(result, str):
                refused[path] = result
            else:
                sites.append(result)
                if result.module is not model.get_submodule(path):
                    materialised[path] = made_of(model.get_submodule(path))
        return cls(
            info=info,
            relaxation=relaxation,
            paths=paths,
            sites=sites,
            refused=refused,
            idle=idle,
            traces=traces,
            materialised=materialised,
            kept=kept,
        )

    @property
    def loose_note(self) -> str | None:
        """Says that convolutions are computed by no layer that could be relaxed; None where none is."""
        loose = max(trace.loose for trace in self.traces)
        if not loose or _ConvNd not in self.relaxation.targets:
            return None
        subject = "a convolution is" if loose == 1 else f"{loose} convolutions are"
        where = "by a function, by a module without known attributes, or inside of a relaxed layer"
        return f"{subject} computed outside of the layers that can be relaxed: {where}"

    def _notes_on_candidates(self) -> Iterator[str]:
        if not self.paths:
            yield f"it takes {_taken(self.relaxation.targets)}, and there is none"
        if self.loose_note is not None:
            yield self.loose_note

    def _materialised_notes(self) -> Iterator[str]:
        by_what: dict[str, list[str]] = {}
        for path, what in self.materialised.items():
            by_what.setdefault(what, []).append(path or "the network")
        for what, paths in by_what.items():
            yield f"materialised: {', '.join(paths)}, whose weight at this moment is free from now on, without {what}"

    def report(self) -> RelaxationReport:
        """What would be replaced, at what cost; nothing is allocated."""
        first = (next(site.module.parameters(), None) for site in self.sites)
        dtypes = {parameter.dtype for parameter in first if parameter is not None}
        dtypes |= {dtype for trace in self.traces for site in self.sites for call in trace.calls[site.path] for dtype in call.dtypes}
        widest = max(dtypes, key=lambda dtype: torch.finfo(dtype).eps, default=torch.float32)
        reports = [
            LayerReport(
                path=site.path,
                before=type(site.module).__name__,
                parameters_before=sum(p.numel() for p in site.module.parameters()),
                cost=answering(self.relaxation.cost, Cost)(site),
            )
            for site in self.sites
        ]
        return RelaxationReport(
            relaxation=self.info.name,
            layers=reports,
            refused=self.refused,
            idle=self.idle,
            dtype=str(widest).removeprefix("torch."),
            tolerance=max(self.info.tolerance, rounding(widest)),
            kept=self.kept,
            notes=[*self._notes_on_candidates(), *self._materialised_notes()],
        )

    def applied(self, registry: Registry) -> AppliedRelaxation:
        """The record that a checkpoint needs."""
        distribution, version = registry.owner(self.info)
        return AppliedRelaxation(
            name=self.info.name,
            options=_options(self.relaxation),
            layers={site.path: site.input_shape for site in self.sites},
            materialised={site.path: site.input_shape for site in self.sites if site.path in self.materialised},
            distribution=distribution,
            version=version,
            api=".".join(map(str, API_VERSION)),
            calls={site.path: site.calls for site in self.sites if site.calls > 1},
            digest=fingerprint(self.relaxation, len(self.sites[0].input_shape) - 1) if self.sites else "",
        )


def _called_more_often(part: Site, whole: Site) -> str:
    return (
        f"it is a part of {whole.path or 'the network'}, which is relaxed as a whole, and is called {part.calls} times in a pass, which is "
        "more often than that; choose one of the two"
    )


def _made_by(model: nn.Module, info: RelaxationInfo, relaxation: AbstractRelaxation, registry: Registry) -> set[str]:
    """The layers of a network that this relaxation, with these options, was the last to make."""
    last = {path: record for record in getattr(model, "anarch_relaxations", ()) for path in record.layers}
    same = (info.name, registry.owner(info)[0], _options(relaxation))
    return {path for path, record in last.items() if (record.name, record.distribution, dict(record.options)) == same}


def _options(relaxation: AbstractRelaxation) -> dict[str, Any]:
    return {} if relaxation.options is None else to_dict(relaxation.options, only_changed=True)


def _traces(model: nn.Module, paths: Sequence[str], chosen: Sequence[str], example_input: Any, sized: bool) -> list[Trace]:
    """The network as it stands; and in the other mode, if chosen layers are called in that one only (auxiliary heads).

    Or more often in that one, where it matters how often they are.
    """
    first = trace(model, paths, example_input)
    looked = [path for path in chosen if not first.calls[path] or (not sized and len(first.calls[path]) > 1)]
    if not looked:
        return [first]
    training = not (model.training if first.manner.training is None else first.manner.training)
    try:
        second = trace_as(Manner(training=training, grad=first.manner.grad), model, paths, example_input)
    except Exception as error:  # not every network runs in both modes
        mode = "training" if training else "evaluation"
        return [attrs.evolve(first, elsewhere=f"in {mode} mode the network does not run on it ({one_line(error)})")]
    return [first, second] if any(len(second.calls[path]) != len(first.calls[path]) for path in looked) else [first]


def _taken(targets: Sequence[type]) -> str:
    """Which layers are taken; by what they have, where a protocol says so, whose name means nothing to those who have the layers."""
    protocols = [target for target in targets if getattr(target, "_is_protocol", False)]
    types = [target.__name__.strip("_") for target in targets if target not in protocols]
    members = [", ".join(get_annotations(target)) for target in protocols]
    return " or ".join(
        ([f"layers of type {' or '.join(types)}"] if types else []) + ([f"modules with {' or with '.join(members)}"] if members else [])
    )
