"""What a switch refuses, and that it then changes nothing."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from anarch_core.errors import ConfigError, InexactRelaxationWarning, OutOfMemoryError, SurgeryError
from anarch_core.relaxation import lattice
from anarch_core.relaxation.own_loop import switch, switch_back
from anarch_core.relaxation.verbs import relax

X = torch.randn(8, 2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def step(model, optimizer):
    optimizer.zero_grad()
    model(X).square().sum().backward()
    optimizer.step()


def trained():
    model = nn.Sequential(nn.Conv1d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv1d(3, 3, 3), nn.Flatten(), nn.Linear(12, 2)).double()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    step(model, optimizer)
    return model, optimizer


def everything(model, optimizer):
    """All that a failed switch must leave: objects by identity, numbers by value."""
    tensors = [*model.state_dict().values()]
    state = {id(p): {k: torch.as_tensor(v).clone() for k, v in values.items()} for p, values in optimizer.state.items()}
    groups = [{key: list(map(id, value)) if key == "params" else value for key, value in group.items()} for group in optimizer.param_groups]
    types = [(id(module), type(module)) for module in model.modules()]
    return [t.clone() for t in tensors], state, copy.deepcopy(groups), types, [id(p) for p in model.parameters()]


class Grouped(nn.Conv1d):
    """A convolution whose objects cannot become something else."""

    __slots__ = ("note",)


REFUSED = {
    "optimizer_state": ({"optimizer_state": "keep"}, ConfigError, "expected one of reset, carry, got 'keep'"),
    "lr": ({"lr": -1.0}, ConfigError, "above 0"),
    "example_input": ({"example_input": X[:, :1]}, SurgeryError, "does not accept the example input"),
    "layers": ({"layers": "nothing"}, SurgeryError, "nothing"),
}


@pytest.mark.parametrize(("arguments", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_changes_nothing(arguments, error, message, same):
    model, optimizer = trained()
    before = everything(model, optimizer)
    with pytest.raises(error, match=message):
        switch(model, optimizer, "efcn", **{"example_input": X, "optimizer_state": "carry"} | arguments)
    assert same(everything(model, optimizer), before)


def test_failures_late_in_a_switch_change_nothing(monkeypatch, same):
    model, optimizer = trained()
    before = everything(model, optimizer)

    def forgets(*_):
        msg = "no memory"
        raise MemoryError(msg)

    def full(needed, *_):
        raise OutOfMemoryError("full", needed=needed, available=0)

    with monkeypatch.context() as patch:
        patch.setattr("anarch_core.relaxation.own_loop.transported", forgets)
        with pytest.raises(MemoryError):
            switch(model, optimizer, "efcn", example_input=X, optimizer_state="carry")
    with monkeypatch.context() as patch:
        patch.setattr("anarch_core.relaxation.own_loop.require_memory", full)
        with pytest.raises(OutOfMemoryError) as caught:
            switch(model, optimizer, "efcn", example_input=X, optimizer_state="carry")
    relaxed = relax(model, "efcn", example_input=X).model
    assert caught.value.needed == 2 * sum(p.nbytes for layer in (0, 2) for p in relaxed[layer].parameters())
    with monkeypatch.context() as patch:
        patch.setattr("anarch_core.relaxation.beside.deviations", lambda *_: [1.0])
        with warnings.catch_warnings():
            warnings.simplefilter("error", InexactRelaxationWarning)
            with pytest.raises(InexactRelaxationWarning):
                switch(model, optimizer, "efcn", example_input=X)
    assert same(everything(model, optimizer), before)


def test_modules_that_cannot_be_replaced_in_place_are_refused_whole(same):
    model, _ = trained()
    handle = model[2].weight.register_post_accumulate_grad_hook(lambda _: None)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = everything(model, optimizer)
    with pytest.raises(SurgeryError, match="2 cannot be replaced in place: its weight has hooks"):
        switch(model, optimizer, "efcn", example_input=X)
    assert same(everything(model, optimizer), before)
    handle.remove()
    switch(model, optimizer, "lcn", example_input=X)
    handle = model[0].register_forward_hook(lambda *_: None)
    with pytest.raises(SurgeryError, match="0 cannot be replaced in place: it has hooks"):
        switch_back(model, optimizer)
    handle.remove()
    switch_back(model, optimizer)


def test_a_class_that_cannot_change_is_refused_and_what_was_changed_is_put_back(monkeypatch, same):
    monkeypatch.setattr(lattice, "CONVOLUTIONS", (*lattice.CONVOLUTIONS, Grouped))
    model = nn.Sequential(nn.Conv1d(2, 3, 3, padding=1), Grouped(3, 3, 3), nn.Flatten(), nn.Linear(12, 2)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    step(model, optimizer)
    before = everything(model, optimizer)
    with pytest.raises(SurgeryError, match=r"1 cannot be replaced in place: .* use anarch_core\.relax"):
        switch(model, optimizer, "efcn", example_input=X)
    assert same(everything(model, optimizer), before)
    step(model, optimizer)


def test_an_optimizer_of_another_network_is_refused():
    model, _ = trained()
    other = torch.optim.SGD(relax(model, "efcn", example_input=X).model.parameters(), lr=0.1)
    with pytest.raises(ConfigError, match="the SGD holds no parameter of this network"):
        switch(model, other, "efcn", example_input=X)


def test_an_optimizer_that_keeps_more_than_state_by_parameter_is_refused():
    model, _ = trained()

    class Keeping(torch.optim.SGD):
        def __init__(self, parameters, **settings) -> None:
            super().__init__(parameters, **settings)
            self.masters = [(p, p.detach().clone()) for group in self.param_groups for p in group["params"]]

    with pytest.raises(ConfigError, match="also keeps parameters in its attribute 'masters'"):
        switch(model, Keeping(model.parameters(), lr=0.1), "efcn", example_input=X)

    class Around(torch.optim.SGD):
        def __init__(self, parameters, **settings) -> None:
            super().__init__(parameters, **settings)
            self.base = torch.optim.Adam(self.param_groups)

    with pytest.raises(ConfigError, match="the Around wraps a Adam and both keep state"):
        switch(model, Around(model.parameters(), lr=0.1), "efcn", example_input=X)


def test_a_learning_rate_that_a_schedule_would_overwrite_is_refused():
    model, optimizer = trained()
    lr_scheduler.StepLR(optimizer, 1)
    with pytest.raises(ConfigError, match="a schedule sets the learning rates"):
        switch(model, optimizer, "efcn", example_input=X, lr=0.1)


def test_several_processes_are_refused(monkeypatch):
    model, optimizer = trained()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(SurgeryError, match=r"2 process\(es\) train together"):
        switch(model, optimizer, "efcn", example_input=X)
