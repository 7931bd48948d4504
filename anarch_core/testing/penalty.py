"""What a penalty promises."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import pytest
import torch
from torch import nn

from anarch_core.layers.base import relaxed_layers
from anarch_core.relaxation.verbs import relax
from anarch_core.surroundings import Surroundings
from anarch_core.testing.component import ComponentConformance
from anarch_core.testing.snapshot import Snapshot, same_bits
from anarch_core.training.penalty import AbstractPenalty, Penalties, Progress


class PenaltyConformance(ComponentConformance):
    """Tests of a penalty, on a small convolutional network that was relaxed and then moved at random.

    Attributes:
        relaxation: what it was relaxed with.
        differentiable: whether the value, as a function of the weights, has the gradients that are given; False where they are gradients of
            something else by design, as in a term that takes a part of itself for a constant.
    """

    kind = "penalty"
    relaxation: ClassVar[str] = "efcn"
    differentiable: ClassVar[bool] = True

    def penalty(self) -> AbstractPenalty:
        """The penalty with the tested options, as it is at the first step."""
        made: AbstractPenalty = self.registry.create(self.kind, self.info.name, dict(self.options))
        return made

    def network(self) -> nn.Module:
        """A relaxed network away from the constrained ones, float64."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layers = nn.Conv1d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv1d(3, 2, 3), nn.Flatten(), nn.Linear(12, 2)
            example = torch.zeros(2, 2, 8, dtype=torch.float64)
            network = relax(nn.Sequential(*layers).double(), self.relaxation, example_input=example, registry=self.registry).model
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter.add_(torch.randn_like(parameter), alpha=0.1)
        return network

    def gradients(self, network: nn.Module, steps: int = 1) -> dict[str, torch.Tensor]:
        """What the last of some steps adds to the gradients, by parameter; nothing is trained in between."""
        penalties, found = self.penalties(network), {}
        for step in range(steps):
            found = _added(penalties, network, step)
        return found

    def penalties(self, network: nn.Module) -> Penalties:
        """The penalty as training has it, over a stretch of ten epochs of two steps."""
        return Penalties({self.info.name: self.penalty()}, network, 20, 2)

    def test_adds_a_term(self) -> None:
        """By the last step of a stretch some parameter of a relaxed layer has a gradient, all are finite, and no other layer has any."""
        network = self.network()
        added = self.gradients(network, steps=20)
        owned = tuple(f"{path}." for path in relaxed_layers(network))
        assert all(tensor.isfinite().all() for tensor in added.values()), "gradients are not finite"
        assert all(name.startswith(owned) for name, tensor in added.items() if tensor.any()), "layers that are not relaxed have a term"
        assert any(tensor.any() for tensor in added.values()), (
            "the last step of a stretch of 20 adds nothing to any gradient; set `options` with which there is a term"
        )

    def test_gradients_are_of_the_value(self) -> None:
        """Along a random direction the value of the last step changes as its gradients say, in float64."""
        if not self.differentiable:
            pytest.skip("its gradients are those of another function by design")
        network = self.network()
        added = self.gradients(network, 20)
        for path, layer in relaxed_layers(network).items():
            way = {name: torch.randn(tensor.shape, generator=_generator()).to(tensor) for name, tensor in layer.named_parameters()}
            expected = (self._along(network, path, way, 1e-6) - self._along(network, path, way, -1e-6)) / 2e-6
            slope = sum(float((added[f"{path}.{name}"] * tensor).sum()) for name, tensor in way.items())
            assert abs(expected - slope) <= 1e-6 * max(abs(slope), 1.0), (
                f"along a direction of {path} the value changes by {expected:.6g} per unit, its gradients say {slope:.6g}; set "
                "`differentiable = False` if that is meant"
            )

    def _along(self, network: nn.Module, path: str, way: Mapping[str, torch.Tensor], far: float) -> float:
        """The value of the last of some steps at weights that lie so far along a direction."""
        layer, penalty, value = network.get_submodule(path), self.penalty(), 0.0
        with torch.no_grad():
            for step in range(20):
                moved = far if step == 19 else 0.0
                for name, parameter in layer.named_parameters():
                    parameter.add_(way[name], alpha=moved)
                progress = Progress(iteration=step, iterations=20, iterations_per_epoch=2)
                value = sum(float(term.value) for term in penalty.terms(relaxed_layers(network), progress))
                for name, parameter in layer.named_parameters():
                    parameter.sub_(way[name], alpha=moved)
        return value

    def test_leaves_the_network_and_the_random_state_alone(self) -> None:
        """Weights stay as they are to the last bit; nothing random is drawn; what a run goes on with is not changed."""
        network = self.network()
        before, states, penalties = Snapshot.of(network), Surroundings.now(), self.penalties(network)
        penalties.add_gradients(0)
        network.zero_grad()
        penalties.end_epoch(2, 2)
        assert not states.changed(), f"it changes the {', '.join(states.changed())}"
        changed = before.changes(network)
        assert not changed, f"it changes {', '.join(changed)}; give gradients, training adds them"

    def test_goes_on_from_its_saved_state(self) -> None:
        """Resumed from its state, it adds what it would have added, to the last bit; so it is with what the history says."""
        network = self.network()
        whole, first, second = self.penalties(network), self.penalties(network), self.penalties(network)
        for step in range(3):
            _added(whole, network, step)
            _added(first, network, step)
        second.load_state({name: tensor.clone() for name, tensor in first.state().items()})
        expected, found = (_added(penalties, network, 3) for penalties in (whole, second))
        assert all(same_bits(expected[name], found[name]) for name in expected), (
            "resumed from its state it adds other gradients; give all that it remembers from step to step in state()"
        )
        assert whole.end_epoch(4, 2) == second.end_epoch(4, 2), "resumed from its state the history says something else"

    def test_history_is_of_numbers(self) -> None:
        """What the history says are finite numbers, under the same names in every epoch."""
        network = self.network()
        penalties, names = self.penalties(network), []
        for epoch in range(3):
            _added(penalties, network, 2 * epoch)
            row = penalties.end_epoch(2 * epoch + 2, 2)
            names.append(list(row))
            assert all(math.isfinite(value) for value in row.values()), f"numbers of epoch {epoch} are not finite: {row}"
        assert names[0] == names[1] == names[2], f"epochs have different columns: {names}"

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_devices_agree(self) -> None:
        """On a CUDA device the same is added as on the CPU."""
        network = self.network()
        expected = self.gradients(network, 3)
        for name, found in self.gradients(network.cuda(), 3).items():
            torch.testing.assert_close(found.cpu(), expected[name], atol=1e-9, rtol=1e-9)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def _added(penalties: Penalties, network: nn.Module, step: int) -> dict[str, torch.Tensor]:
    """What a step adds, by parameter; zeros where that is nothing."""
    network.zero_grad()
    penalties.add_gradients(step)
    found = {name: torch.zeros_like(tensor) if tensor.grad is None else tensor.grad for name, tensor in network.named_parameters()}
    network.zero_grad()
    return {name: tensor.detach() for name, tensor in found.items()}
