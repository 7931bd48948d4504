"""What a probe promises."""

from __future__ import annotations

import copy
import math
import random
from collections import OrderedDict
from collections.abc import Collection
from typing import Any, ClassVar

import attrs
import numpy as np
import pytest
import torch
from torch import nn

from anarch_core.data.tensor_data import TensorData
from anarch_core.errors import AnarchError, first_line
from anarch_core.files.tables import canonical_json
from anarch_core.machine import human_bytes
from anarch_core.planning.probe_memory import rehearsal_of, taken
from anarch_core.probe.base import NEEDS, AbstractProbe, Measurement, ProbeContext
from anarch_core.probe.watch import listed
from anarch_core.relaxation.verbs import relax
from anarch_core.surroundings import Surroundings
from anarch_core.testing.component import ComponentConformance
from anarch_core.testing.convolutions import CONVOLUTIONS
from anarch_core.testing.probe_together import Found, differences, measured_together
from anarch_core.testing.snapshot import Snapshot, same_bits

NUMBERS = 2**19
"""Weights of the largest layer of a network on which memory is measured."""

UNCERTAIN, SLACK = 0.02, 2**19
"""What memory may be above its statement, of it and in bytes: small tensors differ between a measurement and its rehearsal."""


class ProbeConformance(ComponentConformance):
    """Tests of a probe.

    Attributes:
        input_shape: shape of one input of the network that is measured, [channels, *spatial].
        relaxation: what that network was relaxed with.
    """

    kind = "probe"
    input_shape: ClassVar[tuple[int, ...]] = (1, 16)
    relaxation: ClassVar[str] = "efcn"

    def network(self) -> nn.Module:
        """A constrained network with batch norm and dropout, in training mode, on which traces of a measurement would show."""
        return self._network(3, 4)

    def large_network(self) -> nn.Module:
        """Likewise, of which the eFCN takes some megabytes, so that what is as large as a network tells in the memory."""
        halves = [-(-size // 2) for size in self.input_shape[1:]]
        joined = math.prod(halves) * math.prod(-(-size // 2) for size in halves)
        width = math.ceil(math.sqrt(NUMBERS / joined))
        return self._network(width, width)

    def _network(self, first: int, second: int) -> nn.Module:
        torch.manual_seed(0)
        d = len(self.input_shape) - 1
        conv, norm = CONVOLUTIONS[d - 1], (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[d - 1]
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            first=conv(self.input_shape[0], first, 5, stride=2, padding=2),
            norm=norm(first),
            relu=nn.ReLU(),
            dropout=nn.Dropout(0.2),
            second=conv(first, second, 3, stride=2, padding=1),
            flatten=nn.Flatten(),
        )
        features = nn.Sequential(layers)
        outputs = features(torch.zeros(2, *self.input_shape)).shape[1]
        return nn.Sequential(OrderedDict(features=features, head=nn.Linear(outputs, 3)))

    def data(self) -> TensorData:
        """Sixty noisy samples of three classes, a part of them held out for validation."""
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(60, *self.input_shape, generator=generator)
        y = torch.arange(60) % 3
        x += y.view(-1, *[1] * (x.ndim - 1))
        data = TensorData(name="noise", x_train=x[:45], y_train=y[:45], x_test=x[45:], y_test=y[45:], classes=3)
        return data.with_validation(9, seed=0)

    def context(self, without: Collection[str] = ()) -> ProbeContext:
        """A trained relaxed network with all that a probe may need, except for what is to be missing."""
        return self._context(self.network(), without)

    def _context(self, parent: nn.Module, without: Collection[str] = ()) -> ProbeContext:
        data = _as_numbers_of(parent, self.data())
        with torch.no_grad():
            parent(data.x_train)
        reference = parent
        if "relaxed" not in without:
            example = data.x_train[:1]
            reference = relax(parent, self.relaxation, example_input=example, registry=self.registry, check=False).model
        model = _trained(reference, data)
        return ProbeContext(
            model=model,
            data=None if "data" in without else data,
            reference=None if "reference" in without else reference,
            parent=None if "parent" in without else parent,
            twin=None if "twin" in without else _trained(reference, data, seed=1),
            control=None if "control" in without else _trained(parent, data),
            sibling=None if "sibling" in without else _trained(reference, data, seed=2),
            seed=7,
            moment="end",
        )

    def probe(self) -> AbstractProbe:
        """The probe with the tested options."""
        probe: AbstractProbe = self.registry.create(self.kind, self.info.name, dict(self.options))
        return probe

    def test_declares_what_it_needs(self) -> None:
        """`needs` holds nothing but what there may be for a probe: data, other networks, relaxed layers."""
        needs = self.probe().needs
        assert isinstance(needs, frozenset), f"`needs` must be a frozenset: {needs!r}"
        assert needs <= NEEDS, f"`needs` may hold {', '.join(sorted(NEEDS))}, not {', '.join(sorted(needs - NEEDS))}"

    def test_measurement_is_valid(self) -> None:
        """Scalars are finite floats or None, units belong to scalars, details are JSON, tensors can be stored."""
        found = self.probe().measure(self.context())
        assert isinstance(found, Measurement), f"measure() gives a {type(found).__name__}, expected a Measurement"
        assert found.scalars or found.details or found.tensors, "measure() found nothing"
        for name, value in found.scalars.items():
            plain = value is None or (type(value) is float and math.isfinite(value))
            assert plain, f"scalar {name!r} must be a finite float, or None where nothing can be measured: {value!r}"
        strange = sorted(set(found.units) - set(found.scalars))
        assert not strange, f"`units` names {', '.join(strange)}, which is no scalar"
        try:
            canonical_json(dict(found.details))
        except (TypeError, ValueError) as error:
            msg = f"`details` must be JSON-ready, with finite numbers and None instead of nan: {error}"
            raise AssertionError(msg) from error
        for name, tensor in found.tensors.items():
            assert isinstance(tensor, torch.Tensor), f"tensor {name!r} is a {type(tensor).__name__}"
            assert not tensor.requires_grad, f"tensor {name!r} still hangs on the graph of the network; detach() it"

    def test_headline_is_measured(self) -> None:
        """Every scalar of `headline`, and of the record's `axes`, is among the scalars."""
        probe = self.probe()
        context = self.context()
        scalars = probe.measure(context).scalars
        headlines = probe.headlines(context.objective) if context.data is not None else probe.headline
        for where, names in (("`headline`", headlines), ("`axes` of the record", self.info.axes)):
            missing = [name for name in names if name not in scalars]
            assert not missing, (
                f"{where} names {', '.join(missing)}, which measure() does not give; name scalars, None where not measurable"
            )

    def test_leaves_everything_as_it_was(self) -> None:
        """Parameters, gradients, buffers, modes, hooks, data and random states are what they were, bit by bit."""
        context = self.context()
        assert context.data is not None
        networks = {"model": context.model, **context.others}
        before = {role: Snapshot.of(network) for role, network in networks.items()}
        digest, states = context.data.digest(), Surroundings.now()
        self.probe().measure(context)
        for role, snapshot in before.items():
            changes = snapshot.changes(networks[role])
            assert not changes, (
                f"measure() changed the {role}: {', '.join(changes)}; measure inside 'with undisturbed(model)' (anarch_core.network), "
                "and substitute weights with torch.func.functional_call instead of writing to them"
            )
        assert context.data.digest() == digest, "measure() changed the data; do not write to them in place"
        changed = states.changed()
        assert not changed, f"measure() changed the {', '.join(changed)}; draw from a torch.Generator seeded with context.seed"

    def test_is_a_function_of_the_seed(self) -> None:
        """Two measurements of one network with one seed agree to the last bit, whatever the global random state."""
        measurements = []
        state = torch.get_rng_state(), random.getstate(), np.random.get_state()
        try:
            for seed in (1, 2):
                context = self.context()
                torch.manual_seed(seed)
                random.seed(seed)
                np.random.seed(seed)
                measurements.append(self.probe().measure(context))
        finally:
            torch.set_rng_state(state[0])
            random.setstate(state[1])
            np.random.set_state(state[2])
        first, second = measurements
        advice = "draw from generators seeded with context.seed, and keep times out of the measurement"
        differing = [name for name in {**first.scalars, **second.scalars} if first.scalars.get(name) != second.scalars.get(name)]
        assert not differing, f"scalars {', '.join(differing)} differ between two measurements; {advice}"
        assert canonical_json(dict(first.details)) == canonical_json(dict(second.details)), f"details differ; {advice}"
        assert first.tensors.keys() == second.tensors.keys(), f"there are other tensors each time; {advice}"
        differing = [name for name in first.tensors if not same_bits(first.tensors[name], second.tensors[name])]
        assert not differing, f"tensors {', '.join(differing)} differ between two measurements; {advice}"

    def test_memory_is_foreseen(self) -> None:
        """Measuring takes what `memory` said of networks without numbers: never more, and more than half of it."""
        context = self._context(self.large_network())
        probe = self.probe()
        advice = "override memory(): rehearse the part that takes most by rehearsal.peak(...), or count bytes by rehearsal.context.model"
        try:
            stated = probe.memory(rehearsal_of(context))
        except Exception as error:
            msg = f"memory() raised {type(error).__name__}: {first_line(error)}; {advice}"
            raise AssertionError(msg) from error
        peak, networks = taken(context, lambda: probe.measure(context), real=True)
        needed = peak.used - networks
        told = f"memory() states {human_bytes(stated)}, and measuring takes {human_bytes(needed)} beyond networks and data"
        assert needed <= stated * (1 + UNCERTAIN) + SLACK, f"{told}; a run that does not fit would be started: {advice}"
        assert stated <= 2 * needed + SLACK, f"{told}; a run that fits would be refused: {advice}, or take less"

    def test_what_it_needs_is_enough(self) -> None:
        """A context with nothing but what `needs` names can be measured."""
        probe = self.probe()
        rest = NEEDS - probe.needs
        try:
            probe.measure(self.context(without=rest))
        except Exception as error:
            msg = f"without {', '.join(sorted(rest))} it raised {type(error).__name__}: {error}; add what it cannot do without to `needs`"
            raise AssertionError(msg) from error

    def test_refuses_what_lacks_its_needs(self) -> None:
        """Where something that it needs is missing, the probe says so in one line."""
        probe = self.probe()
        for need in sorted(probe.needs):
            advice = f"without {need!r}, raise ProbeError with one line that says what is missing and what to do"
            try:
                probe.measure(self.context(without={need}))
            except AnarchError as error:
                assert str(error).strip() and "\n" not in str(error), f"{advice}: {error}"
            except Exception as error:
                msg = f"{advice}; it raised {type(error).__name__}: {error}"
                raise AssertionError(msg) from error
            else:
                msg = f"`needs` names {need!r}, but the probe does without it; {advice}, or take it out"
                raise AssertionError(msg)

    def test_reports_progress_as_documented(self) -> None:
        """Progress is (done, total, what), done never above total."""
        calls: list[tuple[Any, ...]] = []
        self.probe().measure(attrs.evolve(self.context(), progress=lambda *arguments: calls.append(arguments)))
        for call in calls:
            valid = len(call) == 3 and isinstance(call[0], int) and isinstance(call[1], int) and isinstance(call[2], str)
            assert valid and 0 <= call[0] <= call[1], f"progress is called with (done, total, what), not {call!r}"

    def test_sharded_network_is_measured_as_a_whole_one(self) -> None:
        """A probe that says `sharded` gives on a network that two processes hold together, on both, what it gives on the whole one."""
        probe = self.probe()
        if not probe.sharded:
            pytest.skip("the probe does not say that it measures networks that several processes hold together")
        context = self._context(self.network().double())
        expected = Found.of(probe.measure(context))
        try:
            first, second = measured_together(2, probe, context, self.relaxation)
        except RuntimeError as error:
            msg = f"on a network that two processes hold together it raised; leave `sharded` out of the probe, or mend it: {error}"
            raise AssertionError(msg) from error
        advice = (
            "of the parameters of relaxed layers each process has a part: sum what comes of them by shards_of(model).totals(...) "
            "(anarch_core.sharding), and count what all processes have once"
        )
        found = differences(first, expected)
        assert not found, f"on a network that two processes hold together {listed(found)}; {advice}"
        assert first.equals(second), f"the two processes that hold a network together do not find the same, to the last bit; {advice}"

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_cuda_network_is_measured(self) -> None:
        """A network and data on a CUDA device can be measured, and the tensors of the measurement can be stored."""
        context = self.context()
        assert context.data is not None
        moved = context.beside({role: network.cuda() for role, network in context.others.items()})
        found = self.probe().measure(attrs.evolve(moved, model=context.model.cuda(), data=context.data.to("cuda")))
        assert all(value is None or math.isfinite(value) for value in found.scalars.values())


def _as_numbers_of(network: nn.Module, data: TensorData) -> TensorData:
    """Data whose inputs are of the dtype of a network."""
    dtype = next(network.parameters()).dtype
    held_out = data.x_validation
    return attrs.evolve(
        data,
        x_train=data.x_train.to(dtype),
        x_test=data.x_test.to(dtype),
        x_validation=None if held_out is None else held_out.to(dtype),
    )


def _trained(start: nn.Module, data: TensorData, *, seed: int = 0) -> nn.Module:
    """A copy of a network after two steps, with gradients left from the second, as a probe may find it; a seed chooses the samples."""
    model = copy.deepcopy(start)
    count = len(data.y_train)
    rows = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[: count // 2] if seed else torch.arange(count)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data.x_train[rows]), data.y_train[rows]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model
