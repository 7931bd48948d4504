"""Which layers a relaxation replaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import attrs
import torch
from torch import nn

from anarch_core.plugin.hookspecs import API_VERSION
from anarch_core.plugin.options import to_dict
from anarch_core.plugin.records import RelaxationInfo
from anarch_core.plugin.registry import Registry
from anarch_core.relaxation.base import AbstractRelaxation, Site
from anarch_core.relaxation.report import AppliedRelaxation, LayerReport, RelaxationReport
from anarch_core.relaxation.surgery import Trace, candidates, check_replaceable, select, site_or_reason, trace


@attrs.frozen(kw_only=True)
class Selection:
    """The layers a relaxation will replace, and those it refuses."""

    info: RelaxationInfo
    relaxation: AbstractRelaxation
    paths: Mapping[str, Sequence[str]]
    sites: Sequence[Site]
    refused: Mapping[str, str]
    trace: Trace

    @classmethod
    def of(
        cls, model: nn.Module, name: str, example_input: Any, layers: str | Sequence[str], options: Any, registry: Registry
    ) -> Selection:
        """Trace the network and ask the relaxation about every chosen layer."""
        check_replaceable(model)
        info = cast(RelaxationInfo, registry.find("relaxation", name))
        relaxation = registry.create("relaxation", name, options)
        paths = candidates(model, relaxation.targets)
        chosen = select(paths, layers)
        traced = trace(model, chosen, example_input)
        sites, refused = [], {}
        for path in chosen:
            result = site_or_reason(model, path, traced.calls[path], relaxation)
            if isinstance(result, str):
                refused[path] = result
            else:
                sites.append(result)
        return cls(info=info, relaxation=relaxation, paths=paths, sites=sites, refused=refused, trace=traced)

    def report(self) -> RelaxationReport:
        """What would be replaced, at what cost; nothing is allocated."""
        dtypes = {next(site.module.parameters()).dtype for site in self.sites}
        widest = max(dtypes, key=lambda dtype: torch.finfo(dtype).eps, default=torch.float32)
        reports = [
            LayerReport(
                path=site.path,
                before=type(site.module).__name__,
                parameters_before=sum(p.numel() for p in site.module.parameters()),
                cost=self.relaxation.cost(site),
            )
            for site in self.sites
        ]
        return RelaxationReport(
            relaxation=self.info.name,
            layers=reports,
            refused=self.refused,
            dtype=str(widest).removeprefix("torch."),
            tolerance=max(self.info.tolerance, 1e3 * torch.finfo(widest).eps),
        )

    def applied(self, registry: Registry) -> AppliedRelaxation:
        """The record that a checkpoint needs."""
        distribution, version = registry.owner(self.info)
        options = self.relaxation.options
        return AppliedRelaxation(
            name=self.info.name,
            options={} if options is None else to_dict(options, only_changed=True),
            layers={site.path: site.input_shape for site in self.sites},
            distribution=distribution,
            version=version,
            api=".".join(map(str, API_VERSION)),
        )
