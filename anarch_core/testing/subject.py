"""The relaxation under test, and the layers and networks that it is tried on."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, ClassVar

import hypothesis
import torch
from torch import nn

from anarch_core.layers.base import RelaxedLayer
from anarch_core.relaxation.base import AbstractRelaxation, Site
from anarch_core.relaxation.verbs import Relaxed, plan, relax
from anarch_core.testing.component import ComponentConformance
from anarch_core.testing.convolutions import CONVOLUTIONS, Case, cases

Check = Callable[[Site, torch.Tensor, RelaxedLayer], None]


class RelaxationSubject(ComponentConformance):
    """A relaxation with its options, without checks.

    Attributes:
        tolerance: relative error in float64 that is allowed; that of the record if None.
        dims: numbers of spatial dimensions of the generated convolutions.
        examples: how many convolutions each check generates.
        seed: which ones: the same every time, until you change it.
    """

    kind = "relaxation"
    tolerance: ClassVar[float | None] = None
    dims: ClassVar[tuple[int, ...]] = (1, 2, 3)
    examples: ClassVar[int] = 20
    seed: ClassVar[int] = 0

    def parent(self) -> Case:
        """A layer that the relaxation accepts, in float64, with an input for it; override for layers that are no convolutions."""
        torch.manual_seed(0)
        refused = []
        for d in sorted(self.dims, key=(2, 1, 3).index):
            conv = CONVOLUTIONS[d - 1](2, 3, 3, padding=1, dtype=torch.float64)
            case = Case(conv, torch.randn(2, 2, *(6, 5, 4)[:d], dtype=torch.float64))
            reason = self.relaxation().refusal(site_of(case))
            if reason is None:
                return case
            refused.append(f"{conv}: {reason}")
        msg = f"the relaxation refuses every plain convolution ({'; '.join(refused)}); override `parent` with a layer that it takes"
        raise AssertionError(msg)

    def network(self) -> tuple[nn.Module, torch.Tensor]:
        """A network with batch norm around layers to be relaxed, and activations that work in place, in float64, and an input for it."""
        torch.manual_seed(0)
        d = self.parent().x.ndim - 2
        conv, norm = CONVOLUTIONS[d - 1], (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[d - 1]
        size = (6, 5, 4)[:d]
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            first=conv(2, 3, 3, padding=1, bias=False),
            norm=norm(3),
            relu=nn.ReLU(inplace=True),
            second=conv(3, 2, 3, padding=1, stride=2),
            silu=nn.SiLU(inplace=True),
            flatten=nn.Flatten(),
        )
        features = nn.Sequential(layers)
        outputs = features(torch.zeros(2, 2, *size)).shape[1]
        x = torch.randn(4, 2, *size, dtype=torch.float64)
        return nn.Sequential(OrderedDict(features=features, head=nn.Linear(outputs, 3))).double(), x

    def relaxation(self) -> AbstractRelaxation:
        """The relaxation with the tested options."""
        relaxation: AbstractRelaxation = self.registry.create(self.kind, self.info.name, dict(self.options))
        return relaxation

    @property
    def allowed(self) -> float:
        """Relative error in float64 that is allowed."""
        return float(self.info.tolerance) if self.tolerance is None else self.tolerance

    def lifted(self) -> tuple[Site, torch.Tensor, RelaxedLayer]:
        """The parent's site, an input, and the relaxed layer."""
        case = self.parent()
        site = site_of(case)
        layer = self.relaxation().lift(site)
        assert isinstance(layer, RelaxedLayer), f"lift() gives a {type(layer).__name__}, expected a RelaxedLayer"
        assert layer.relaxation == self.info.name, f"the layer's `relaxation` is {layer.relaxation!r}, expected {self.info.name!r}"
        return site, case.x, layer

    def relaxed(self, network: nn.Module, x: torch.Tensor) -> Relaxed:
        """The network with every layer relaxed that the relaxation accepts."""
        arguments: dict[str, Any] = {"example_input": x, "options": dict(self.options), "registry": self.registry}
        planned = plan(network, self.name, **arguments)
        assert planned.layers, f"no layer of the network can be relaxed ({planned.refused}); override `network` with one that can"
        return relax(network, self.name, layers=[layer.path for layer in planned.layers], **arguments)

    def on_generated(self, check: Check) -> set[str]:
        """Run a check on generated convolutions; returns why others were refused."""
        relaxation = self.relaxation()
        accepted, refused = 0, set()

        @hypothesis.seed(self.seed)
        @hypothesis.settings(
            max_examples=self.examples,
            deadline=None,
            derandomize=False,
            database=None,
            suppress_health_check=[hypothesis.HealthCheck.too_slow],
        )
        @hypothesis.given(case=cases(dims=self.dims))
        def generated(case: Case) -> None:
            nonlocal accepted
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Using padding='same'", category=UserWarning)
                site = site_of(case)
                reason = relaxation.refusal(site)
                if reason is not None:
                    refused.add(reason)
                    return
                accepted += 1
                check(site, case.x, relaxation.lift(site))

        generated()
        assert accepted, f"every generated convolution is refused ({'; '.join(sorted(refused))}); narrow `dims`, or accept more"
        return refused


def site_of(case: Case) -> Site:
    """What surgery would tell the relaxation of the layer."""
    with torch.no_grad():
        output = case.conv(case.x)
    return Site(path="layer", module=case.conv, input_shape=tuple(case.x.shape[1:]), output_shape=tuple(output.shape[1:]))


@torch.no_grad()
def disturb(module: nn.Module) -> None:
    """Move every parameter somewhere else."""
    generator = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        parameter.add_(torch.randn(parameter.shape, dtype=parameter.dtype, generator=generator), alpha=0.1)
