"""The relaxation under test, and the layers and networks that it is tried on."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import attrs
import hypothesis
from hypothesis.strategies import SearchStrategy
from torch import nn

from anarch_core.layers.base import RelaxedLayer
from anarch_core.relaxation.base import AbstractRelaxation, Site
from anarch_core.relaxation.surgery import is_target, site_or_reason, traced_site
from anarch_core.relaxation.trace import trace
from anarch_core.relaxation.verbs import Relaxed, plan, relax
from anarch_core.testing import convolutions
from anarch_core.testing.cases import Case, Surrounded, apart, moved_off_constants
from anarch_core.testing.component import ComponentConformance

SMALL = 60
"""Numbers of a relaxed layer of which matrices are made."""

_FOUND: WeakKeyDictionary[type, dict[tuple[int, int], list[tuple[int, Case]]]] = WeakKeyDictionary()

Check = Callable[[Case, RelaxedLayer], None]


class RelaxationSubject(ComponentConformance):
    """A relaxation with its options, without checks.

    Attributes:
        tolerance: relative error in float64 that is allowed; that of the record if None.
        dims: numbers of spatial dimensions of the generated convolutions.
        examples: how many layers each check generates.
        seed: which ones: the same every time, until you change it.
    """

    kind = "relaxation"
    tolerance: ClassVar[float | None] = None
    dims: ClassVar[tuple[int, ...]] = (1, 2, 3)
    examples: ClassVar[int] = 20
    seed: ClassVar[int] = 0

    def cases(self) -> SearchStrategy[Case]:
        """Layers with their arguments, in every setting that the relaxation has to be exact for: convolutions, unless overridden.

        Keep them small: some checks make matrices of them.
        """
        return convolutions.cases(dims=self.dims)

    def parent(self) -> Case:
        """A layer that the relaxation accepts: the generated one with most to train; a plain convolution where those are generated."""
        if self._of_convolutions:
            plain = (convolutions.plain(d) for d in sorted(self.dims, key=(2, 1, 3).index))
            accepted = next((case for case in plain if self._passed_over(case) is None), None)
            if accepted is not None:
                return accepted
        return max(self._accepted(), key=lambda pair: pair[0])[1].fresh()

    def small(self) -> list[tuple[Case, RelaxedLayer]]:
        """A few layers that are small enough for matrices, with what becomes of them: of the generated ones, those with most to train."""
        by_size = sorted(self._accepted(), key=lambda pair: pair[0])
        largest = [pair for pair in by_size if pair[0] <= SMALL][-2:] or [pair for pair in by_size[:1] if pair[0] <= 8 * SMALL]
        return [(case, self.lift(case)) for case in (case.fresh() for _, case in largest)]

    def _accepted(self) -> list[tuple[int, Case]]:
        """The generated layers that are relaxed, and what they then have to train; found once for all checks of a class."""
        known = _FOUND.setdefault(type(self), {})
        which = (self.examples, self.seed)
        if which not in known:
            found: list[tuple[int, Case]] = []
            relaxation = self.relaxation()
            self.on_cases(lambda case: found.append((relaxation.cost(self.site(case)).parameters, case.fresh())))
            known[which] = found
        return known[which]

    def network(self) -> tuple[nn.Module, Any]:
        """A network around layers to be relaxed, in float64, and an example input: a tensor, or a tuple of arguments.

        Unless overridden, two copies of the parent, each with batch norm and activations that work in place.
        """
        case = self.parent()
        return Surrounded(case), case.given

    def large(self) -> Case | None:
        """A layer on the meta device, relaxed far too large for memory; None where there is none."""
        return convolutions.large(min(self.dims, key=(2, 1, 3).index)) if self._of_convolutions else None

    def relaxation(self) -> AbstractRelaxation:
        """The relaxation with the tested options."""
        relaxation: AbstractRelaxation = self.registry.create(self.kind, self.info.name, dict(self.options))
        return relaxation

    @property
    def allowed(self) -> float:
        """Relative error in float64 that is allowed."""
        return float(self.info.tolerance) if self.tolerance is None else self.tolerance

    def site(self, case: Case) -> Site:
        """What surgery tells the relaxation of a layer."""
        network = case.around()
        return traced_site(network, "layer", [trace(network, ["layer"], case.given)], self.relaxation())

    def lift(self, case: Case, site: Site | None = None) -> RelaxedLayer:
        """The relaxed layer; ``site`` where it is known from another layer with the same arguments."""
        site = self.site(case) if site is None else attrs.evolve(site, module=case.module)
        layer = self.relaxation().lift(site)
        assert isinstance(layer, RelaxedLayer), f"lift() gives a {type(layer).__name__}, expected a RelaxedLayer"
        assert layer.relaxation == self.info.name, f"the layer's `relaxation` is {layer.relaxation!r}, expected {self.info.name!r}"
        return layer

    def lifted(self) -> tuple[Case, RelaxedLayer]:
        """The parent, and the relaxed layer."""
        case = self.parent()
        return case, self.lift(case)

    def relaxed(self, network: nn.Module, example_input: Any) -> Relaxed:
        """The network with every layer relaxed that the relaxation accepts."""
        arguments: dict[str, Any] = {"example_input": example_input, "options": dict(self.options), "registry": self.registry}
        planned = plan(network, self.name, **arguments)
        assert planned.layers, f"no layer of the network can be relaxed ({planned.refused}); override `network` with one that can"
        return relax(network, self.name, layers=[layer.path for layer in planned.layers], **arguments)

    def on_generated(self, check: Check) -> set[str]:
        """Run a check on generated layers; returns why others were passed over."""
        return self.on_cases(lambda case: check(case, self.lift(case)))

    def on_cases(self, check: Callable[[Case], None]) -> set[str]:
        """Run a check on generated layers that are not relaxed; returns why others were passed over."""
        accepted, passed_over = 0, set()

        @hypothesis.seed(self.seed)
        @hypothesis.settings(
            max_examples=self.examples,
            deadline=None,
            derandomize=False,
            database=None,
            suppress_health_check=[hypothesis.HealthCheck.too_slow],
        )
        @hypothesis.given(case=self.cases())
        def generated(case: Case) -> None:
            nonlocal accepted
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Using padding='same'", category=UserWarning)
                reason = self._passed_over(case)
                if reason is not None:
                    passed_over.add(reason)
                    return
                accepted += 1
                moved_off_constants(case.module)
                self._require_a_function(case)
                check(case)

        generated()
        advice = "narrow `dims`, or accept more" if self._of_convolutions else "let `cases` give others, or accept more"
        assert accepted, f"every generated layer is refused, or has nothing to relax ({'; '.join(sorted(passed_over))}); {advice}"
        return passed_over

    def _require_a_function(self, case: Case) -> None:
        first, second = case.fresh().outputs(), case.fresh().outputs()
        error = apart(second, first)
        assert error <= self.allowed or apart(first, first) > 0, (
            f"the generated layer {case} gives something else each time it is called, by {error:.1e}, so nothing can be compared with it: "
            "it draws random numbers; put it into evaluation mode, or give it a generator of its own"
        )

    @property
    def _of_convolutions(self) -> bool:
        return type(self).cases is RelaxationSubject.cases

    def _passed_over(self, case: Case) -> str | None:
        """Why there is nothing to relax, or why it cannot be; None if it can."""
        relaxation, network = self.relaxation(), case.around()
        traces = [trace(network, ["layer"], case.given)]
        site = traced_site(network, "layer", traces, relaxation)
        idle = relaxation.idle(site) if is_target(case.module, relaxation.targets) else None
        found = site_or_reason(site, traces, relaxation) if idle is None else idle
        return found if isinstance(found, str) else None
