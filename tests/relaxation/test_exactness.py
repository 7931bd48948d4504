"""The exactness check sees what the relaxed network really computes, and says what it could not see."""

from __future__ import annotations

import copy
import random
import re
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from anarch_core import switch
from anarch_core.errors import InexactRelaxationWarning, NoEffectWarning
from anarch_core.relaxation.verbs import project, relax

ALL = ["efcn", "lcn", "shared", "tiled"]


def adds_in_place(self, x):
    y = self.c(x)
    y += x
    return y


def changes_its_input(self, x):
    x.mul_(2)
    return self.c(x)


def counts_its_calls(self, x):
    self.calls = getattr(self, "calls", 0) + 1
    return self.c(x) * self.calls


def differentiates(self, x):
    x.requires_grad_()
    return torch.autograd.grad(self.c(x).square().sum(), x)[0]


def yields(self, x):
    for k in range(2):
        yield self.c(x) + k


def has_autocast(self, x):
    with torch.autocast("cpu", torch.bfloat16):
        return self.c(x)


def recurs(self, x):
    return self.memory(self.c(x).flatten(2))


FORWARDS = {
    "in place": adds_in_place,
    "changes its input": changes_its_input,
    "minus infinity": lambda self, x: self.c(x).masked_fill(x > 0, -torch.inf),
    "some nan": lambda self, x: self.c(x).masked_fill(x > 0, torch.nan),
    "random": lambda self, x: self.c(x) * torch.rand(()),
    "random by Python": lambda self, x: self.c(x) * random.random(),
    "random by NumPy": lambda self, x: self.c(x) * float(np.random.rand()),
    "counts its calls": counts_its_calls,
    "differentiates": differentiates,
    "generator": yields,
    "autocast": has_autocast,
    "integers": lambda self, x: self.c(x).round().int(),
    "calls by keyword": lambda self, x: self.c(input=x),
    "reads the stride": lambda self, x: self.c(x) * self.c.stride[0],
    "reads the dtype": lambda self, x: self.c(x.to(self.c.weight.dtype)),
    "several": lambda self, x: {"a": (self.c(x), None), "b": self.c(self.c(x)).mean()},
}


@pytest.mark.parametrize("name", FORWARDS)
def test_whatever_a_forward_does_the_lift_is_exact_and_said_to_be(network, x, name):
    before = x.clone()
    report = relax(network(FORWARDS[name]), "lcn", example_input=x).report
    assert report.exact
    assert not report.notes
    assert report.error <= (0.02 if name == "autocast" else 1e-6)
    assert torch.equal(x, before)


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize("kind", [nn.ReLU, nn.Hardswish, nn.ELU, nn.Dropout, nn.SiLU, nn.LeakyReLU])
def test_activations_that_work_in_place(family, kind, x):
    network = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), kind(inplace=True))
    report = relax(network, family, example_input=x).report
    assert report.exact
    assert report.layers[0].error < 1e-6


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_recurrent_layers_beside_convolutions(network, x, kind):
    assert relax(network(recurs, memory=kind(36, 3, batch_first=True)), "efcn", example_input=x).report.exact


def off_by_seven(made):
    """A forward that is off by 7 once its layer is relaxed, and returns what ``made`` makes of it."""
    return lambda self, x: made(self.c(x) + (0 if isinstance(self.c, nn.Conv2d) else 7))


@pytest.mark.parametrize(
    "made",
    [
        lambda y: y,
        lambda y: {"a": [y]},
        lambda y: (each for each in [y]),
        lambda y: torch.complex(y, y),
        lambda y: y.round().int(),
        lambda y: y.detach().numpy(),
        lambda y: y.sum().item(),
        lambda y: torch.distributions.Normal(y, 1.0),
        lambda y: y.masked_fill(y.detach() > 1, torch.nan),
    ],
)
def test_a_deviation_is_seen_in_whatever_is_returned(network, x, made):
    with pytest.warns(InexactRelaxationWarning, match="lcn differs from its parent by .* end to end"):
        report = relax(network(off_by_seven(made)), "lcn", example_input=x).report
    assert report.exact is False
    assert report.error > 1


@pytest.mark.parametrize("made", [str, lambda y: None, lambda y: y * torch.nan, lambda y: y[:0]])
def test_where_nothing_can_be_compared_the_error_is_none_and_a_sentence_says_so(network, x, made):
    report = relax(network(lambda self, x: made(self.c(x))), "lcn", example_input=x).report
    assert report.error is None
    assert report.exact  # as far as its layer goes, which was compared
    assert report.notes == ["the outputs of the network were not compared: they hold no number that can be"]


def test_warnings_point_to_the_line_that_asked(network, x):
    model = network(off_by_seven(lambda y: y))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.warns(InexactRelaxationWarning) as relaxed:
        relax(model, "lcn", example_input=x)
    with pytest.warns(InexactRelaxationWarning) as switched:
        switch(model, optimizer, "lcn", example_input=x)
    with pytest.warns(NoEffectWarning) as idle:
        relax(nn.Sequential(nn.Flatten()), "lcn", example_input=x)
    assert {warning.filename for warning in [*relaxed, *switched, *idle]} == {__file__}


def test_a_report_of_which_nothing_was_compared_is_neither_exact_nor_inexact(network, x):
    assert relax(network(adds_in_place), "lcn", example_input=x, check=False).report.exact is None


@pytest.mark.parametrize("random_by_itself", [lambda y, draw: y * (1 + draw()), lambda y, draw: y + draw()])
def test_a_network_that_is_random_by_itself_is_not_called_inexact(network, x, random_by_itself):
    draw = random.Random(0).random  # a generator that nobody can put back
    report = relax(network(lambda self, x: (random_by_itself(self.c(x), draw), self.c(x))), "lcn", example_input=x).report
    assert report.exact
    assert report.error < 1e-6  # of the output that is not random
    assert re.search(r"1 of 2 outputs were not compared: the network is random or stateful", report.notes[0])


def test_what_a_network_keeps_in_a_list_is_put_back_before_it_is_compared(network, x):
    def remembers(self, x):
        self.seen.append(None)
        return self.c(x) * len(self.seen)

    report = relax(network(remembers, seen=[]), "lcn", example_input=x).report
    assert report.exact
    assert report.error < 1e-6
    assert not report.notes


def test_a_network_that_remembers_its_calls_is_not_called_inexact(network, x):
    def remembers(self, x):
        self.seen[0].append(None)  # deeper than anybody looks
        return self.c(x) * len(self.seen[0])

    report = relax(network(remembers, seen=[[]]), "lcn", example_input=x).report
    assert (report.exact, report.error) == (True, None)
    assert report.notes[0].startswith("outputs were not compared: the network is random or stateful by itself")


def test_rounding_that_the_network_amplifies_is_not_called_inexact_and_a_change_is(network, x):
    report = relax(network(lambda self, x: (self.c(x) * 1e7).sin()), "lcn", example_input=x).report
    assert report.exact
    assert report.error > report.tolerance
    assert report.amplified > report.error / 10
    assert report.notes[0].startswith("the network amplifies rounding: its outputs move by")
    with pytest.warns(InexactRelaxationWarning):  # the same where rounding is not what makes the difference
        assert relax(network(lambda self, x: off_by_seven(torch.sin)(self, x)), "lcn", example_input=x).report.exact is False


def test_a_layer_that_is_not_exact_is_not_called_rounding(network, x):
    class Counted(nn.Linear):
        def forward(self, x):
            self.calls = getattr(self, "calls", 0) + 1
            return super().forward(x) * self.calls

    looped = network(lambda self, x: setattr(self.c, "calls", 0) or self.c(self.c(x)), c=Counted(6, 6))
    with pytest.warns(InexactRelaxationWarning, match="end to end"):
        report = relax(looped, "untie", example_input=x).report
    assert report.layers[0].error > report.tolerance
    assert report.amplified == 0
    assert not report.notes


def test_a_number_of_outputs_that_depends_on_rounding_is_not_compared(network, x):
    report = relax(network(lambda self, x: [self.c(x).mean()] * int((self.c(x).sum() * 1e9).long() % 97)), "lcn", example_input=x).report
    assert report.exact
    assert report.error is None


def test_outputs_that_appear_are_a_deviation(network, x):
    appear = network(lambda self, x: [self.c(x)] if not isinstance(self.c, nn.Conv2d) else [self.c(x)][:0])
    with pytest.warns(InexactRelaxationWarning, match="differs from its parent by inf end to end"):
        assert relax(appear, "lcn", example_input=x).report.exact is False


class Heads(nn.Module):
    """With an auxiliary head that is called in training mode only."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.aux = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 1, 3)

    def forward(self, x: torch.Tensor) -> object:
        y = self.trunk(x)
        return (y, self.aux(y)) if self.training else y


@pytest.mark.parametrize("training", [True, False])
def test_auxiliary_heads_are_relaxed_in_either_mode(x, training):
    relaxed = relax(Heads().train(training), "lcn", example_input=x)
    assert [layer.path for layer in relaxed.report.layers] == ["trunk", "aux"]
    assert relaxed.report.exact
    assert [module.training for module in relaxed.model.modules()] == [training] * 3


def test_the_network_is_checked_in_the_mode_it_is_in(network, x):
    """Batch norm of a batch and of its statistics are other functions; so is a forward that asks for its mode."""
    model = network(
        lambda self, x: self.n(self.c(x)) + (7 if self.training and not isinstance(self.c, nn.Conv2d) else 0), n=nn.BatchNorm2d(2)
    )
    before = copy.deepcopy(model.state_dict())
    with pytest.warns(InexactRelaxationWarning):
        assert relax(model.train(), "lcn", example_input=x).report.exact is False
    assert relax(model.eval(), "lcn", example_input=x).report.exact
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_network_that_does_not_run_in_training_mode_is_checked_in_evaluation_mode(x):
    model = nn.Sequential(nn.Conv2d(2, 2, 3), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(2))
    report = relax(model, "lcn", example_input=x[:1]).report
    assert report.exact
    assert re.match(
        r"checked in evaluation mode: in training mode .* \(ValueError: Expected more than 1 value per channel", report.notes[0]
    )
    assert all(module.training for module in model.modules())


def test_where_training_mode_amplifies_rounding_evaluation_mode_decides(x):
    """Batch norm over two numbers that hardly differ makes one of them large and the other small, whatever they are."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 2, 6), nn.BatchNorm2d(2, eps=1e-12))
    example = x[:1].expand(2, -1, -1, -1) + 1e-6 * x
    report = relax(model, "lcn", example_input=example).report
    assert report.exact
    assert report.error < report.tolerance
    assert report.amplified == 0
    assert re.match(
        r"in training mode the network amplifies rounding: .*; so its outputs were compared in evaluation mode", report.notes[0]
    )


def test_outputs_that_are_all_zero_say_little_and_so_does_the_report(network, x):
    report = relax(network(lambda self, x: self.c(x) * 0), "lcn", example_input=x).report
    assert (report.exact, report.error) == (True, 0.0)
    assert "all zero on this example" in report.notes[0]


@pytest.mark.parametrize("family", ALL)
def test_without_numbers_a_network_is_relaxed_and_nothing_is_said_of_exactness(family):
    """For sizes that no machine has, or before weights are loaded."""
    with torch.device("meta"):
        model, x = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(inplace=True)), torch.empty(2, 3, 224, 224)
    relaxed = relax(model, family, example_input=x)
    assert relaxed.report.exact is None
    assert [layer.error for layer in relaxed.report.layers] == [None]
    assert relaxed.report.notes[1] == "not compared: 0, whose outputs hold no number on this example"
    assert relaxed.model(x).shape == (2, 64, 224, 224)
    assert project(relaxed.model)[0].weight.shape == model[0].weight.shape


def test_half_precision_can_fail(x):
    class Off(nn.Conv2d):
        pass

    model = nn.Sequential(nn.Conv2d(2, 2, 3)).to(torch.bfloat16)
    report = relax(model, "lcn", example_input=x.bfloat16()).report
    assert report.exact
    assert report.tolerance < 0.2


def test_convolutions_that_no_layer_computes_are_mentioned(network, x):
    model = network(lambda self, x: nn.functional.conv2d(self.c(x), self.weight, padding=1), weight=nn.Parameter(torch.randn(2, 2, 3, 3)))
    report = relax(model, "lcn", example_input=x).report
    assert report.exact
    assert "a convolution is computed outside of the layers that can be relaxed" in report.notes[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not relax(nn.Sequential(nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3)), "lcn", example_input=x, layers="0").report.notes
