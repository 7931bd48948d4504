"""A wrong probe is found, and what to mend is said.

Each test breaks a correct component in one place and runs the one check that has to notice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from anarch_core.probe.base import AbstractProbe, Measurement
from anarch_core.sharding import shards_of
from anarch_core.testing import ProbeConformance

Kit = Callable[..., Any]


class Norm(AbstractProbe):
    headline = ("norm",)

    def measure(self, context: Any) -> Measurement:
        return Measurement(scalars={"norm": float(sum(p.detach().norm() for p in context.model.parameters()))})


class Disturbing(Norm):
    def measure(self, context: Any) -> Measurement:
        context.model.eval()
        return super().measure(context)


class Drawing(Norm):
    def measure(self, context: Any) -> Measurement:
        return Measurement(scalars={"norm": torch.rand(()).item()})


class Tensorial(Norm):
    def measure(self, context: Any) -> Measurement:
        return Measurement(scalars={"norm": torch.ones(())})  # type: ignore[dict-item]


class NotJson(Norm):
    def measure(self, context: Any) -> Measurement:
        return Measurement(scalars={}, details={"loss": float("nan")})


class Demanding(Norm):
    def measure(self, context: Any) -> Measurement:
        return Measurement(scalars={"norm": float(context.data.x_train.norm())})


class Inventive(Norm):
    needs = frozenset({"gradient"})


class Overdone(Norm):
    def measure(self, context: Any) -> Measurement:
        context.progress(3, 1, "norm")
        return super().measure(context)


class Undemanding(Norm):
    needs = frozenset({"data"})


class DemandingInSilence(Demanding):
    needs = frozenset({"data"})


class Modest(Norm):
    def memory(self, rehearsal: Any) -> int:
        return 0

    def measure(self, context: Any) -> Measurement:
        copies = [p.detach().clone() for p in context.model.parameters()]
        return Measurement(scalars={"norm": float(sum(copy.norm() for copy in copies))})


class Greedy(Norm):
    def memory(self, rehearsal: Any) -> int:
        return 10**7


class Clueless(Norm):
    def measure(self, context: Any) -> Measurement:
        return Measurement(scalars={"norm": float(sum(float(p.detach().numpy().sum()) for p in context.model.parameters()))})


class OfAPart(Norm):
    sharded = True


class OfEach(AbstractProbe):
    """What is whole in one process, and of nothing but the first part in the others."""

    sharded = True

    def measure(self, context: Any) -> Measurement:
        shards = shards_of(context.model)
        return Measurement(scalars={"bias": float(context.model.head.bias.detach().sum()) + 1e-12 * (0 if shards is None else shards.rank)})


class Alone(AbstractProbe):
    sharded = True

    def measure(self, context: Any) -> Measurement:
        weight = context.model.get_parameter("features.first.weight").detach()
        return Measurement(scalars={"sum": float((weight * torch.ones(24, 16)).sum())})


@pytest.mark.parametrize(
    ("target", "check", "message"),
    [
        (Modest, "test_memory_is_foreseen", "states 0 B, and measuring takes .* MB .*; a run that does not fit would be started: override"),
        (Greedy, "test_memory_is_foreseen", r"states 10\.0 MB, and measuring takes .*; a run that fits would be refused: override"),
        (Clueless, "test_memory_is_foreseen", r"memory\(\) raised RuntimeError: .*; override memory\(\): rehearse the part"),
        (Disturbing, "test_leaves_everything_as_it_was", "changed the model: training mode of .*; measure inside 'with undisturbed"),
        (
            Drawing,
            "test_leaves_everything_as_it_was",
            "changed the random state of torch; draw from a torch.Generator seeded with context.seed",
        ),
        (Drawing, "test_is_a_function_of_the_seed", "scalars norm differ between two measurements"),
        (Tensorial, "test_measurement_is_valid", "scalar 'norm' must be a finite float, or None"),
        (NotJson, "test_measurement_is_valid", "`details` must be JSON-ready"),
        (NotJson, "test_headline_is_measured", r"`headline` names norm, which measure\(\) does not give"),
        (Demanding, "test_what_it_needs_is_enough", "it raised AttributeError.*; add what it cannot do without to `needs`"),
        (Undemanding, "test_refuses_what_lacks_its_needs", "`needs` names 'data', but the probe does without it"),
        (DemandingInSilence, "test_refuses_what_lacks_its_needs", "raise ProbeError with one line .*; it raised AttributeError"),
        (
            Inventive,
            "test_declares_what_it_needs",
            "`needs` may hold control, data, parent, reference, relaxed, sibling, twin, not gradient",
        ),
        (Overdone, "test_reports_progress_as_documented", r"progress is called with \(done, total, what\), not \(3, 1, 'norm'\)"),
        (
            OfAPart,
            "test_sharded_network_is_measured_as_a_whole_one",
            r"scalar 'norm' is \d.*, and \d.* in one process; of the parameters of relaxed layers each process has a part: sum",
        ),
        (OfEach, "test_sharded_network_is_measured_as_a_whole_one", "the two processes .* do not find the same, to the last bit"),
        (Alone, "test_sharded_network_is_measured_as_a_whole_one", "it raised; leave `sharded` out of the probe, or mend it"),
        (Disturbing, "test_target_is_what_its_kind_promises", "Disturbing inherits from Norm, which can be used itself"),
    ],
)
def test_a_wrong_probe(fails: Kit, plugin: Kit, target: type, check: str, message: str) -> None:
    plugin("probe", target)
    fails(ProbeConformance, check, message)
