"""A step is rehearsed on tensors that hold no numbers: nothing is allocated, and what is counted is what the step takes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from anarch_core.planning.hollow import Hollow
from anarch_core.planning.ledger import KEPT, RETURNED
from anarch_core.planning.rehearsal import Rehearsal
from anarch_core.plugin.registry import get_registry
from anarch_core.relaxation.selection import Selection
from anarch_core.relaxation.verbs import plan, relax

MB = 2**20


def sgd(model, **options):
    return torch.optim.SGD(model.parameters(), lr=0.1, fused=True, **options)


def rehearsed(model, x, relaxation=None):
    rehearsal = Rehearsal(model)
    if relaxation:
        rehearsal.relax(Selection.of(model, relaxation, x, "*", None, get_registry()))
    return rehearsal


def perceptron(inputs, hidden):
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, 10))


X, Y = torch.zeros(4, 512), torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("optimizer", "copies"),
    [(sgd, 2), (lambda m: sgd(m, momentum=0.9), 3), (lambda m: torch.optim.Adam(m.parameters(), fused=True), 4)],
    ids=["sgd", "momentum", "adam"],
)
def test_weights_gradients_and_what_the_optimizer_remembers_are_counted(optimizer, copies):
    model = perceptron(512, 4096)
    size = sum(parameter.nbytes for parameter in model.parameters())
    used = rehearsed(model, X).training(optimizer, X, Y, batch=4).used
    assert used == pytest.approx(copies * size, rel=0.05)


def test_a_pruned_network_that_keeps_the_weight_of_a_step_of_training():
    model = perceptron(512, 4096)
    prune.l1_unstructured(model[0], "weight", 0.5)
    model(X).sum().backward()
    used = rehearsed(model, X).training(sgd, X, Y, batch=4).used
    assert used == pytest.approx(5 * model[0].weight.nbytes, rel=0.1)  # weights, gradients, mask, product of them and its gradient


def test_masks_of_a_pruned_network_say_what_it_is_without_them():
    model = perceptron(512, 4096)
    prune.l1_unstructured(model[0], "weight", 0.5)
    rehearsal = rehearsed(model, X, "unmask")
    assert all(isinstance(tensor, Hollow) for tensor in (*rehearsal.model.parameters(), *rehearsal.model.buffers()))
    used = rehearsal.training(sgd, X, Y, batch=4).used
    assert used == pytest.approx(3 * model[0].weight.nbytes, rel=0.1)  # weights, gradients, and what is under the mask


CONVOLUTION = nn.Sequential(nn.Conv1d(4, 8, 5, padding=2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 128, 10))
SIGNALS = torch.zeros(2, 4, 128)


def test_a_fused_update_needs_no_gradient():
    rehearsal = rehearsed(CONVOLUTION, SIGNALS, "efcn")
    size = sum(parameter.nbytes for parameter in rehearsal.model.parameters())
    assert rehearsal.training(sgd, SIGNALS, Y, batch=1).used < 1.1 * size
    assert rehearsed(CONVOLUTION, SIGNALS, "efcn").training(lambda m: sgd(m, momentum=0.5), SIGNALS, Y, batch=1).used > 2.9 * size


def test_a_clipped_step_of_a_dense_layer_needs_no_gradient():
    rehearsal = rehearsed(CONVOLUTION, SIGNALS, "efcn")
    size = sum(parameter.nbytes for parameter in rehearsal.model.parameters())
    assert rehearsal.training(sgd, SIGNALS, Y, batch=1, clip_norm=1.0).used < 1.1 * size


def test_activations_grow_with_the_batch():
    """Backward through a perceptron holds its inputs, what ReLU gave, and the gradients on both sides of ReLU."""
    one, two = (rehearsed(perceptron(512, 4096), X).training(sgd, X, Y, batch=batch).used for batch in (8192, 16384))
    each = (two - one) / 8192
    assert each == pytest.approx(4 * (512 + 3 * 4096), rel=0.01)


def test_evaluation_keeps_nothing_for_backward():
    rehearsal = rehearsed(perceptron(512, 4096), X)
    assert rehearsal.evaluation(X, Y, batch=16384).used < rehearsal.training(sgd, X, Y, batch=16384).used


@pytest.mark.parametrize("relaxation", ["efcn", "lcn", "shared", "tiled"])
def test_relaxed_networks_hold_no_numbers(relaxation):
    rehearsal = rehearsed(CONVOLUTION, SIGNALS, relaxation)
    assert all(isinstance(parameter, Hollow) for parameter in rehearsal.model.parameters())
    report = plan(CONVOLUTION, relaxation, example_input=SIGNALS)
    assert rehearsal.training(sgd, SIGNALS, Y, batch=4).used > report.bytes


@pytest.mark.parametrize("relaxation", ["efcn", "lcn", "shared", "tiled"])
def test_what_layers_keep_for_later_holds_its_numbers(relaxation):
    """Index tables are made in the first step, which may be the rehearsed one."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(4 * 49, 10))
    x = torch.randn(5, 3, 13, 13)
    rehearsed(model, x, relaxation).training(sgd, x, Y, batch=3)
    relaxed = relax(model, relaxation, example_input=x)
    assert relaxed.report.exact
    torch.nn.functional.cross_entropy(relaxed.model(x[:4]), Y).backward()


def test_a_network_of_any_size_can_be_rehearsed():
    model = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    x = torch.zeros(2, 3, 256, 256)
    assert rehearsed(model, x, "efcn").training(sgd, x, Y, batch=2).used > 4 * (3 * 256**2) * (64 * 256**2)


def test_small_blocks_are_held_and_large_ones_returned():
    rehearsal = rehearsed(perceptron(512, 1024), X)
    small = rehearsal.evaluation(X, Y, batch=16)
    assert small.held == 2 * small.used
    rows = RETURNED // (4 * 1024)
    large = rehearsal.evaluation(X, Y, batch=2 * rows)
    assert large.used < large.held <= large.used + 2 * KEPT


def test_of_what_is_chosen_by_values_all_is_taken_to_be_chosen():
    class Choosy(nn.Module):
        def forward(self, x):
            chosen = x[x > 0].repeat(8)
            return chosen[:10].expand(len(x), 10)

    assert rehearsed(Choosy(), X).evaluation(X, Y, batch=4).used > 8 * 4 * 4 * 512


def test_ways_that_depend_on_values_are_refused():
    class Choosy(nn.Module):
        def forward(self, x):
            return torch.from_numpy(x.numpy())

    with pytest.raises(RuntimeError):
        rehearsed(Choosy(), X).evaluation(X, Y, batch=4)
