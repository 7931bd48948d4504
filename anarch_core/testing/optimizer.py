"""What an optimizer promises."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import nn

from anarch_core.surroundings import Surroundings
from anarch_core.testing.component import ComponentConformance
from anarch_core.testing.snapshot import Snapshot, same_bits
from anarch_core.training.optimizer_state import load_optimizer_state, optimizer_state


class OptimizerConformance(ComponentConformance):
    """Tests of an optimizer.

    Attributes:
        lr: learning rate at which it lowers a small regression loss.
        steps: in how many steps.
    """

    kind = "optimizer"
    arguments = ("parameters", "lr", "options")
    lr: ClassVar[float] = 0.02
    steps: ClassVar[int] = 60

    @property
    def called_with(self) -> tuple[str, ...]:
        """A network too, if the record asks for it."""
        return (*self.arguments, "model") if self.info.takes_model else self.arguments

    def build(self, network: nn.Module, lr: float | None = None) -> torch.optim.Optimizer:
        """The optimizer of a network's parameters."""
        parameters = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
        given = (network,) if self.info.takes_model else ()
        found = self.registry.target(self.info)(parameters, self.lr if lr is None else lr, self.parsed_options, *given)
        assert isinstance(found, torch.optim.Optimizer), f"the target gives a {type(found).__name__}, expected a torch.optim.Optimizer"
        return found

    def network(self) -> nn.Module:
        """A small network in training mode."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return nn.Sequential(nn.Conv1d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))

    def test_holds_every_parameter_once(self) -> None:
        """All parameters that were given are in its groups, each once, at the learning rate that was asked for."""
        network = self.network()
        before, states = Snapshot.of(network), Surroundings.now()
        optimizer = self.build(network)
        held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
        assert sorted(held) == sorted(id(parameter) for parameter in network.parameters()), (
            f"it holds {len(held)} parameters of {len(list(network.parameters()))}; give it the second of every (name, parameter)"
        )
        rates = {group["lr"] for group in optimizer.param_groups}
        assert self.lr in rates, f"its groups have learning rates {rates}, none the one that was asked for, {self.lr}"
        assert not before.changes(network), f"building it changes the network: {', '.join(before.changes(network))}"
        assert not states.changed(), f"building it changes the {', '.join(states.changed())}"

    def test_lowers_a_loss(self) -> None:
        """It lowers the loss of a small regression by a fifth at least."""
        network = self.network()
        losses = _train(network, self.build(network), self.steps)
        assert losses[-1] < 0.8 * losses[0], (
            f"after {self.steps} steps at a learning rate of {self.lr} the loss went from {losses[0]:.4g} to {losses[-1]:.4g}; "
            "check the sign of the step, or set `lr` and `steps` to what suits it"
        )
        assert all(parameter.isfinite().all() for parameter in network.parameters()), "weights are not finite after training"

    def test_obeys_the_learning_rate(self) -> None:
        """The learning rate is read from the groups at every step, where schedules set it: at zero nothing moves."""
        network = self.network()
        optimizer = self.build(network)
        _train(network, optimizer, 2)
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        weights = [parameter.detach().clone() for parameter in network.parameters()]
        _train(network, optimizer, 1)
        moved = any(not torch.equal(old, new) for old, new in zip(weights, network.parameters(), strict=True))
        assert not moved, "weights move at a learning rate of 0; read group['lr'] in step(), and scale all motion by it"

    def test_skips_parameters_without_gradient(self) -> None:
        """A parameter whose gradient is None stays as it is."""
        network = self.network()
        optimizer = self.build(network)
        x, y = _problem()
        network(x).sub(y).square().mean().backward()
        still, weight = network[3].bias, network[3].bias.detach().clone()  # type: ignore[index]
        still.grad = None
        optimizer.step()
        assert torch.equal(still.detach(), weight), "a parameter whose gradient is None was moved; skip it in step()"

    def test_is_a_function_of_its_gradients(self) -> None:
        """Training twice gives the same weights to the last bit, whatever the random state."""
        results = []
        for seed in (1, 2):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                network = self.network()
                torch.manual_seed(seed)
                _train(network, self.build(network), 5)
            results.append([parameter.detach() for parameter in network.parameters()])
        equal = all(same_bits(a, b) for a, b in zip(*results, strict=True))
        assert equal, "training twice gives other weights; keep random numbers out of step(), or a resumed run goes elsewhere"

    def test_goes_on_from_its_saved_state(self) -> None:
        """An interrupted training, resumed from its saved state, reaches the same weights to the last bit."""
        straight = self.network()
        _train(straight, self.build(straight), 6)
        first = self.network()
        optimizer = self.build(first)
        _train(first, optimizer, 3)
        tensors, scalars = optimizer_state(optimizer)
        second = self.network()
        second.load_state_dict(first.state_dict())
        resumed = self.build(second)
        load_optimizer_state(resumed, tensors, scalars)
        _train(second, resumed, 3)
        equal = all(same_bits(a, b) for a, b in zip(straight.parameters(), second.parameters(), strict=True))
        assert equal, (
            "resumed from its state the optimizer goes elsewhere; keep all memory in self.state[parameter], as tensors and numbers"
        )

    def test_its_state_has_roles(self) -> None:
        """Every tensor of its memory that is shaped as its parameter has a role, by which a run carries it over a switch."""
        unknown = sorted(self._remembered() - self.info.roles.keys())
        assert not unknown, (
            f"it keeps {', '.join(unknown)} for a parameter, and `roles` of its record does not say what that moves like, so that nothing "
            "is carried over a switch; write 'weight', 'gradient' or 'square', or expect this failure if it cannot be carried"
        )

    def test_roles_are_those_of_its_state(self) -> None:
        """Where it remembers anything, every role is that of a tensor shaped as its parameter."""
        remembered = self._remembered()
        missing = sorted(self.info.roles.keys() - remembered)
        assert not (remembered and missing), (
            f"`roles` names {', '.join(missing)}, which it does not keep after {self.steps} steps, but {', '.join(sorted(remembered))}"
        )

    def test_dtype_is_kept(self) -> None:
        """Parameters stay float32 or float64, whichever they were."""
        for dtype in (torch.float32, torch.float64):
            network = self.network().to(dtype)
            _train(network, self.build(network), 2)
            assert all(parameter.dtype == dtype for parameter in network.parameters()), f"{dtype} parameters change their dtype"

    def _remembered(self) -> set[str]:
        """Keys of its state under which it keeps a tensor shaped as the parameter."""
        network = self.network()
        optimizer = self.build(network)
        _train(network, optimizer, self.steps)
        states = [(parameter.shape, optimizer.state.get(parameter, {})) for parameter in network.parameters()]
        return {key for shape, state in states for key, value in state.items() if isinstance(value, torch.Tensor) and value.shape == shape}

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_cuda_parameters_are_trained(self) -> None:
        """Parameters on a CUDA device are trained as on the CPU."""
        here, there = self.network(), self.network().cuda()
        _train(here, self.build(here), 3)
        _train(there, self.build(there), 3)
        for name, parameter in here.named_parameters():
            torch.testing.assert_close(there.get_parameter(name).cpu(), parameter, atol=1e-4, rtol=1e-3)


def _problem() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(32, 1, 8, generator=generator)
    return x, torch.stack([x.mean((1, 2)), x[:, 0, 0]], 1)


def _train(network: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    """Losses of a regression before every step."""
    x, y = (tensor.to(next(network.parameters())) for tensor in _problem())
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (network(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
