"""A switch in the midst of somebody's training loop: same network, same optimizer, same function, and more weights that train."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

import anarch_core
from anarch_core.errors import ConfigError, NoEffectWarning, OptimizerStateWarning, SurgeryError
from anarch_core.relaxation.optimizer_state import carry_optimizer_state
from anarch_core.relaxation.optimizer_surgery import succession
from anarch_core.relaxation.own_loop import switch, switch_back
from anarch_core.relaxation.verbs import drift, relax

X = torch.randn(8, 2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.arange(8) % 2


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv1d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv1d(3, 3, 3), nn.Flatten(), nn.Linear(12, 2)).double()


def train(model, optimizer, steps=2, schedule=None):
    """Some steps of a plain loop; gives the loss of the batch before each."""
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(X), Y)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        if schedule is not None:
            schedule.step(loss.detach()) if isinstance(schedule, lr_scheduler.ReduceLROnPlateau) else schedule.step()
    return losses


def loss_of(model) -> float:
    return float(nn.functional.cross_entropy(model(X), Y).detach())


def numbers(optimizer):
    """All that an optimizer keeps; a parameter without state may have an entry or none."""
    kept = optimizer.state_dict()
    return kept | {"state": {index: values for index, values in kept["state"].items() if values}}


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3, foreach=True),
    "fused sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, fused=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "amsgrad": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True, foreach=False),
    "fused adamw": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
    "tensor lr": lambda p: torch.optim.AdamW(p, lr=torch.tensor(0.01)),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "radam": lambda p: torch.optim.RAdam(p, lr=0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01, initial_accumulator_value=0.1),
    "asgd": lambda p: torch.optim.ASGD(p, lr=0.01, t0=0),
}
WITHOUT_ROLES = {
    "adadelta": lambda p: torch.optim.Adadelta(p),
    "adamax": lambda p: torch.optim.Adamax(p, lr=0.01),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=0.01),
}
every_optimizer = pytest.mark.parametrize("build", [*OPTIMIZERS.values(), *WITHOUT_ROLES.values()], ids=[*OPTIMIZERS, *WITHOUT_ROLES])


@pytest.mark.filterwarnings("ignore::anarch_core.errors.OptimizerStateWarning")
@pytest.mark.parametrize("optimizer_state", ["carry", "reset"])
@every_optimizer
def test_the_loop_goes_on_with_the_same_objects_the_same_loss_and_more_weights(build, optimizer_state):
    model = network()
    modules = list(model.modules())
    optimizer = build(model.parameters())
    train(model, optimizer)
    settings = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    before, head = loss_of(model), model[4].weight

    switched = switch(model, optimizer, "efcn", example_input=X, optimizer_state=optimizer_state)

    assert switched.model is model
    assert switched.optimizer is optimizer
    assert list(model.modules()) == modules
    assert model[4].weight is head
    assert switched.report is not None
    assert switched.report.exact
    assert loss_of(model) == pytest.approx(before, rel=1e-12)
    assert [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups] == settings
    assert [id(p) for group in optimizer.param_groups for p in group["params"]] == [id(p) for p in model.parameters()]
    assert switched.optimizer_state.keys() == dict(model.named_parameters()).keys()

    lifted = copy.deepcopy(model)
    train(model, optimizer, 3)
    for layer in (0, 2):
        assert not torch.equal(model[layer].weight, lifted[layer].weight)
    assert drift(model).total.unshared > 0
    optimizer.load_state_dict(optimizer.state_dict())  # nothing is left of the old parameters


@pytest.mark.parametrize("build", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_the_state_is_what_a_new_optimizer_would_be_given(build, same):
    model = network()
    optimizer = build(model.parameters())
    train(model, optimizer, 3)
    relaxed = relax(model, "lcn", example_input=X)
    expected = build(relaxed.model.parameters())
    fate = carry_optimizer_state(relaxed, optimizer, expected)
    switched = switch(model, optimizer, "lcn", example_input=X, optimizer_state="carry")
    assert switched.optimizer_state == fate
    assert set(fate.values()) <= {"carried", "empty"}
    assert same(numbers(optimizer), numbers(expected))
    assert train(model, optimizer) == train(relaxed.model, expected)


@pytest.mark.parametrize("build", [OPTIMIZERS["adam"], OPTIMIZERS["adagrad"], WITHOUT_ROLES["adamax"]])
def test_reset_is_a_new_optimizer_for_the_whole_network(build, same):
    model = network()
    optimizer = build(model.parameters())
    train(model, optimizer)
    relaxed = relax(model, "efcn", example_input=X)
    switched = switch(model, optimizer, "efcn", example_input=X, optimizer_state="reset")
    assert set(switched.optimizer_state.values()) == {"reset"}
    fresh = build(relaxed.model.parameters())
    assert same(numbers(optimizer), numbers(fresh))
    assert train(model, optimizer) == train(relaxed.model, fresh)


@pytest.mark.parametrize("build", WITHOUT_ROLES.values(), ids=WITHOUT_ROLES)
def test_state_that_cannot_be_carried_starts_anew_and_is_told(build):
    model = network()
    optimizer = build(model.parameters())
    train(model, optimizer)
    kept = optimizer.state[model[4].weight]
    with pytest.warns(OptimizerStateWarning, match=r"keeps of 0.weight, .* starts anew") as caught:
        fate = switch(model, optimizer, "efcn", example_input=X, optimizer_state="carry").optimizer_state
    assert caught[0].filename == __file__
    assert fate["0.weight"] == fate["2.weight"] == "reset"
    assert fate["4.weight"] == fate["4.bias"] == "carried"
    assert optimizer.state[model[4].weight] is kept
    assert not optimizer.state.get(model[0].weight)


@pytest.mark.filterwarnings("ignore::anarch_core.errors.OptimizerStateWarning")
def test_steps_of_a_fused_optimizer_go_on_where_projected_layers_start_without_momentum():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True)
    train(model, optimizer)
    switch(model, optimizer, "efcn", example_input=X, optimizer_state="carry")
    train(model, optimizer)
    fate = switch_back(model, optimizer, optimizer_state="carry").optimizer_state
    assert {fate[name] for name in ("0.weight", "2.weight", "4.weight")} == {"reset", "carried"}
    assert not any(optimizer.state[model[0].weight]["momentum_buffer"].flatten())
    train(model, optimizer)


def test_an_optimizer_that_never_stepped_has_nothing_to_carry():
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    fate = switch(model, optimizer, "efcn", example_input=X, optimizer_state="carry").optimizer_state
    assert set(fate.values()) == {"empty"}
    assert not optimizer.state


def test_roles_of_an_optimizer_of_ones_own():
    class Averaging(torch.optim.SGD):
        @torch.no_grad()
        def step(self, closure=None):
            super().step(closure)
            for group in self.param_groups:
                for parameter in group["params"]:
                    self.state[parameter].setdefault("average", parameter.clone()).lerp_(parameter, 0.5)

    model = network()
    optimizer = Averaging(model.parameters(), lr=0.1)
    train(model, optimizer)
    average = copy.deepcopy(model)
    with torch.no_grad():
        for parameter, other in zip(average.parameters(), model.parameters(), strict=True):
            parameter.copy_(optimizer.state[other]["average"])
    switch(model, optimizer, "efcn", example_input=X, optimizer_state="carry", roles={"average": "weight"})
    lifted = relax(average, "efcn", example_input=X).model
    for parameter, expected in zip(model.parameters(), lifted.parameters(), strict=True):
        assert torch.equal(optimizer.state[parameter]["average"], expected)


def test_every_parameter_goes_to_its_parents_group_and_those_in_none_stay_in_none():
    model = network()
    model[0].bias.requires_grad_(False)
    stranger = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = torch.optim.AdamW(
        [
            {"params": [model[4].weight, model[2].weight], "lr": 0.1, "weight_decay": 0.5},
            {"params": [model[2].bias, stranger, model[4].bias], "weight_decay": 0.0},
        ],
        lr=0.01,
    )
    train(model, optimizer)
    stranger.grad = torch.ones_like(stranger)
    optimizer.step()
    kept = optimizer.state[stranger]
    groups = optimizer.param_groups[:]
    fate = switch(model, optimizer, "efcn", example_input=X, optimizer_state="carry").optimizer_state
    first, second = optimizer.param_groups
    assert first is groups[0]
    assert list(map(id, first["params"])) == list(map(id, [model[4].weight, model[2].weight]))
    assert list(map(id, second["params"])) == list(map(id, [model[2].bias, stranger, model[4].bias]))
    assert (first["lr"], first["weight_decay"], second["lr"], second["weight_decay"]) == (0.1, 0.5, 0.01, 0.0)
    assert optimizer.state[stranger] is kept
    assert fate == dict.fromkeys(["4.weight", "2.weight", "2.bias", "4.bias"], "carried")
    assert not model[0].bias.requires_grad
    assert model[0].weight.requires_grad


def test_parameters_of_other_names_go_where_one_of_their_kind_was():
    model = nn.Sequential(nn.Conv1d(2, 3, 3), nn.Linear(4, 4))
    weight, bias = model[0].weight, model[0].bias
    optimizer = torch.optim.SGD([{"params": [model[1].weight, weight]}, {"params": [bias, model[1].bias]}], lr=0.1, momentum=0.9)
    optimizer.state[weight] = {"momentum_buffer": torch.ones_like(weight)}
    layer = nn.Module()
    layer.gate = nn.Parameter(torch.ones(3))
    layer.values = nn.Conv1d(2, 3, 3)
    planned = succession(optimizer, model, {"0": layer}, lambda *_: {"values.weight": {"momentum_buffer": torch.zeros(3, 2, 3)}})
    assert planned.fate == {
        "0.gate": "reset",
        "0.values.weight": "carried",
        "0.values.bias": "empty",
        "1.weight": "empty",
        "1.bias": "empty",
    }
    assert optimizer.param_groups[0]["params"][1] is weight
    planned.enter()
    groups = [list(map(id, group["params"])) for group in optimizer.param_groups]
    assert groups[0] == list(map(id, [model[1].weight, layer.gate, layer.values.weight]))
    assert groups[1] == list(map(id, [layer.values.bias, model[1].bias]))
    assert list(optimizer.state) == [layer.values.weight]
    model[0] = layer
    succession(optimizer, model, {"0": nn.Conv1d(2, 3, 3)}, None).enter()
    assert [[parameter.shape for parameter in group["params"]] for group in optimizer.param_groups] == [[(4, 4), (3, 2, 3)], [(3,), (4,)]]
    assert not optimizer.state


def test_what_the_optimizer_calls_its_parameters_goes_along():
    model = nn.Module()
    model.net = network()
    optimizer = torch.optim.Adam(model.named_parameters())
    switch(model.net, optimizer, "efcn", example_input=X)
    assert optimizer.param_groups[0]["param_names"] == [name for name, _ in model.named_parameters()]
    train(model.net, optimizer)


def test_tied_modules_and_tied_weights_stay_tied():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(2, 2, 3, padding=1)
            self.again = self.conv
            self.aside = [self.conv]
            self.head = nn.Linear(6, 6, bias=False)
            self.back = nn.Linear(6, 6, bias=False)
            self.back.weight = self.head.weight

        def forward(self, x):
            return self.back(self.head(self.aside[0](self.again(self.conv(x))))).flatten(1)

    model = Tied().double()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    train(model, optimizer)
    before = loss_of(model)
    fate = switch(model, optimizer, "efcn", example_input=X, optimizer_state="carry").optimizer_state
    assert fate == dict.fromkeys(["conv.weight", "conv.bias", "head.weight"], "carried")
    assert model.conv is model.again is model.aside[0]
    assert model.back.weight is model.head.weight
    assert loss_of(model) == pytest.approx(before, rel=1e-12)
    start = model.conv.weight.detach().clone()
    train(model, optimizer)
    assert not torch.equal(model.conv.weight, start)


def test_a_network_that_is_itself_the_layer():
    model = nn.Conv1d(2, 1, 6).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    expected = model(X)
    switch(model, optimizer, "efcn", example_input=X)
    assert type(model).__name__ == "FullyConnectedLayer"
    torch.testing.assert_close(model(X), expected)
    assert optimizer.param_groups[0]["params"][0] is model.weight
    switch_back(model, optimizer)
    assert type(model) is nn.Conv1d
    torch.testing.assert_close(model(X), expected)


SCHEDULES = {
    "step": lambda o: lr_scheduler.StepLR(o, 2, 0.5),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 10),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=10, cycle_momentum=True),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0, threshold=1.0),
    "warm up": lambda o: lr_scheduler.SequentialLR(o, [lr_scheduler.LinearLR(o), lr_scheduler.ExponentialLR(o, 0.9)], [2]),
}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("build", [OPTIMIZERS["momentum"], OPTIMIZERS["adam"]], ids=["sgd", "adam"])
def test_a_schedule_goes_on_as_if_nothing_had_happened(build, schedule):
    def rates(steps_before):
        torch.manual_seed(0)
        model = network()
        optimizer = build(model.parameters())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # SequentialLR steps its parts in a way PyTorch warns of
            scheduler = schedule(optimizer)
            seen = []
            for step in range(6):
                if step == steps_before:
                    switch(model, optimizer, "efcn", example_input=X, optimizer_state="carry")
                train(model, optimizer, 1, scheduler)
                group = optimizer.param_groups[0]
                seen.append([group["lr"], group.get("initial_lr"), group.get("momentum"), group.get("betas")])
        return seen

    assert rates(3) == rates(None)


def test_a_learning_rate_for_the_time_after():
    model = network()
    optimizer = torch.optim.SGD([{"params": model[:3].parameters()}, {"params": model[3:].parameters(), "lr": 0.5}], lr=0.1)
    switch(model, optimizer, "efcn", example_input=X, lr=0.02)
    assert [group["lr"] for group in optimizer.param_groups] == [0.02, 0.02]

    model = network()
    rate = torch.tensor(0.1)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    switch(model, optimizer, "efcn", example_input=X, lr=0.02)
    assert optimizer.param_groups[0]["lr"] is rate
    assert float(rate) == pytest.approx(0.02)


def test_hooks_and_closures_of_the_optimizer_go_on():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    called = []
    optimizer.register_step_post_hook(lambda *_: called.append(1))
    train(model, optimizer)
    switch(model, optimizer, "efcn", example_input=X)
    train(model, optimizer)
    assert len(called) == 4


def test_lbfgs_has_one_history_which_is_reset_or_refused():
    model = network()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)

    def closure():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(X), Y)
        loss.backward()
        return loss

    optimizer.step(closure)
    with pytest.raises(ConfigError, match="one history of all weights"):
        switch(model, optimizer, "efcn", example_input=X, optimizer_state="carry")
    switch(model, optimizer, "efcn", example_input=X)
    assert not optimizer.state
    start, before = loss_of(model), model[0].weight.detach().clone()
    optimizer.step(closure)
    assert loss_of(model) < start
    assert not torch.equal(model[0].weight, before)


def test_switching_twice_and_back():
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    train(model, optimizer)
    switch(model, optimizer, "lcn", example_input=X, layers="0", optimizer_state="carry")
    train(model, optimizer)
    before = loss_of(model)
    fate = switch(model, optimizer, "efcn", example_input=X, optimizer_state="carry").optimizer_state
    assert set(fate.values()) == {"carried"}
    assert loss_of(model) == pytest.approx(before, rel=1e-12)
    assert [applied.name for applied in model.anarch_relaxations] == ["lcn", "efcn"]
    train(model, optimizer)
    expected = anarch_core.project(model, layers="0")
    with pytest.warns(OptimizerStateWarning, match=r"0\.weight, 0\.bias cannot be carried"):
        back = switch_back(model, optimizer, layers="0", optimizer_state="carry")
    assert back.report is None
    assert back.optimizer_state == {name: "reset" if name.startswith("0.") else "carried" for name, _ in model.named_parameters()}
    assert type(model[0]) is nn.Conv1d
    assert model.anarch_relaxations == expected.anarch_relaxations
    torch.testing.assert_close(model(X), expected(X), rtol=0, atol=0)
    start = model[0].weight.detach().clone()
    train(model, optimizer)
    assert not torch.equal(model[0].weight, start)
    assert set(switch_back(model, optimizer).optimizer_state.values()) == {"reset"}
    with pytest.raises(SurgeryError, match="no relaxed layer"):
        switch_back(model, optimizer)


def test_a_switched_network_is_saved_and_loaded_as_a_relaxed_one(tmp_path):
    model = network()
    base = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    switch(model, optimizer, "efcn", example_input=X)
    train(model, optimizer)
    anarch_core.save(model, tmp_path / "switched.safetensors")
    again = anarch_core.load(tmp_path / "switched.safetensors", model=base)
    torch.testing.assert_close(again(X), model(X), rtol=0, atol=0)


def trained():
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    train(model, optimizer)
    return model, optimizer


def test_a_network_without_anything_to_relax_is_told():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.warns(NoEffectWarning):
        switch(model, optimizer, "efcn", example_input=X)
    train(model, optimizer)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of PyTorch, about what it compiles
@pytest.mark.parametrize("how", ["wrapped", "in place", "in part"])
def test_a_compiled_network_is_compiled_again(how):
    model, optimizer = trained()
    compiled = model
    if how == "wrapped":
        compiled = torch.compile(model, backend="eager")
    elif how == "in place":
        model.compile(backend="eager")
    else:
        model[2] = torch.compile(model[2], backend="eager")
    train(compiled, optimizer)
    before = loss_of(compiled)
    layer = model[2]._orig_mod if how == "in part" else model[2]
    switched = switch(compiled, optimizer, "efcn", example_input=X, optimizer_state="carry")
    assert switched.model is compiled
    assert "0.weight" in switched.optimizer_state
    assert loss_of(compiled) == pytest.approx(before, rel=1e-12)
    start = layer.weight.detach().clone()
    assert start.ndim == 2
    train(compiled, optimizer)
    assert not torch.equal(layer.weight, start)
    assert loss_of(compiled) == pytest.approx(loss_of(copy.deepcopy(model)), rel=1e-12)
    switch_back(compiled, optimizer)
    assert type(layer) is nn.Conv1d
    train(compiled, optimizer)


def test_a_network_in_data_parallel_is_switched_inside():
    model, optimizer = trained()
    switch(nn.DataParallel(model), optimizer, "efcn", example_input=X)
    assert type(model[0]).__name__ == "FullyConnectedLayer"


def test_what_accelerate_prepared_is_switched_as_it_is():
    accelerate = pytest.importorskip("accelerate")
    state = pytest.importorskip("accelerate.state")
    state.AcceleratorState._reset_state(True)
    accelerator = accelerate.Accelerator(cpu=True, mixed_precision="bf16")
    plain = network().float()
    schedule = lr_scheduler.StepLR(inner := torch.optim.AdamW(plain.parameters(), lr=0.01), 1, 0.5)
    model, optimizer, schedule = accelerator.prepare(plain, inner, schedule)
    x = X.float()

    def steps(number):
        for _ in range(number):
            optimizer.zero_grad()
            accelerator.backward(nn.functional.cross_entropy(model(x), Y))
            optimizer.step()
            schedule.step()

    steps(2)
    before = model(x).detach()
    switched = switch(model, optimizer, "efcn", example_input=x, optimizer_state="carry")
    assert "forward" in vars(model)
    assert switched.report.error < 1e-6
    assert switched.optimizer is optimizer
    assert set(switched.optimizer_state.values()) == {"carried"}
    torch.testing.assert_close(model(x).detach(), before, rtol=0.02, atol=0.02)
    start = model[0].weight.detach().clone()
    steps(2)
    assert not torch.equal(model[0].weight, start)
    assert float(inner.state[plain[0].weight]["step"]) == 4
    assert inner.param_groups[0]["lr"] == 0.01 / 16
    state.AcceleratorState._reset_state(True)


def test_layers_may_be_switched_one_after_another():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv1d(3, 3, 3, padding=1), nn.Flatten(), nn.Linear(48, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x = torch.randn(5, 1, 16)

    def step() -> None:
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()

    step()
    switch(model, optimizer, "lcn", example_input=x, layers="0", optimizer_state="carry")
    step()
    first, outputs = model[0].weight, model(x)
    weight, momentum = first.clone(), optimizer.state[first]["momentum_buffer"].clone()
    switched = switch(model, optimizer, "lcn", example_input=x, optimizer_state="carry")
    assert switched.report.kept == ["0"]
    assert torch.equal(model[0].weight, weight)
    assert torch.equal(optimizer.state[model[0].weight]["momentum_buffer"], momentum)
    assert type(model[2]).__name__ == "LocallyConnectedLayer"
    torch.testing.assert_close(model(x), outputs)
    step()
