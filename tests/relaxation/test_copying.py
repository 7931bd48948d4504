"""Copies of networks are faithful, whatever the modules hold."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from anarch_core.errors import SurgeryError
from anarch_core.relaxation.copying import copy_with
from anarch_core.relaxation.verbs import relax


def test_kept_activations_are_copied_without_their_history(network, x):
    def keeps(self, x):
        self.kept = {"last": [self.c(x)]}
        return self.kept["last"][0]

    model = network(keeps)
    model(x)
    kept = model.kept["last"][0]
    relaxed = relax(model, "lcn", example_input=x)
    assert relaxed.report.exact
    assert relaxed.model.kept["last"][0].is_leaf
    assert model.kept["last"][0] is kept


@pytest.mark.parametrize("lock", [threading.Lock, threading.RLock, threading.Condition, threading.Event])
def test_locks_are_new_ones(network, x, lock):
    held = lock()
    model = network(lambda self, x: self.c(x), lock=held, more={"locks": [held]})
    copied = relax(model, "lcn", example_input=x).model
    assert type(copied.lock) is type(held)
    assert copied.lock is copied.more["locks"][0] is not held


def test_an_event_that_is_set_is_set_in_the_copy(network, x):
    model = network(lambda self, x: self.c(x), begun=threading.Event(), ended=threading.Event())
    model.begun.set()
    copied = relax(model, "lcn", example_input=x).model
    assert (copied.begun.is_set(), copied.ended.is_set()) == (True, False)


def test_a_lock_that_counts_is_not_copied_as_another_one(network, x):
    with pytest.raises(SurgeryError, match="its attribute slots is a Semaphore"):
        relax(network(lambda self, x: self.c(x), slots=threading.Semaphore(3)), "lcn", example_input=x)


class Teacher(nn.Linear):
    """Shared by all copies of a network."""

    def __deepcopy__(self, memo):
        return self


class Remade(nn.Module):
    """Makes its copies anew."""

    def __init__(self):
        super().__init__()
        self.inner = nn.ReLU()

    def __deepcopy__(self, memo):
        return Remade()

    def forward(self, x):
        return self.inner(x)


def test_modules_that_copy_themselves_do_so(network, x):
    model = network(lambda self, x: self.remade(self.teacher(self.c(x))), teacher=Teacher(6, 6), remade=Remade())
    relaxed = relax(model, "lcn", example_input=x)
    assert relaxed.report.exact
    assert relaxed.model.teacher is model.teacher
    assert relaxed.model.remade is not model.remade


def test_what_cannot_be_copied_is_refused_by_path(network, x):
    model = nn.Sequential(nn.Conv2d(2, 2, 3), network(lambda self, x: x, c=nn.ReLU()))
    with Path(os.devnull).open() as file:
        model[1].log = file
        with pytest.raises(SurgeryError, match=r"1 cannot be copied, which is needed here: its attribute log is a TextIOWrapper") as caught:
            relax(model, "lcn", example_input=x)
    assert caught.value.paths == ("1",)


def test_mixed_modes_are_kept(network):
    model = network(lambda self, x: x, norm=nn.BatchNorm2d(2), inner=nn.Sequential(nn.Dropout(), nn.ReLU()))
    model.norm.eval()
    model.inner[0].eval()
    copied = copy_with(model, {})
    assert [module.training for module in copied.modules()] == [module.training for module in model.modules()]


@pytest.mark.parametrize("training", [True, False])
def test_feature_extractors_keep_both_graphs_and_their_mode(training):
    """copy.deepcopy alone gives a copy in evaluation mode that runs the graph of training mode."""
    models = pytest.importorskip("torchvision.models", exc_type=(ImportError, RuntimeError))
    extraction = pytest.importorskip("torchvision.models.feature_extraction", exc_type=(ImportError, RuntimeError))
    torch.manual_seed(0)
    whole = models.resnet18(num_classes=3).double().train(training)
    model = extraction.create_feature_extractor(whole, {"layer2": "out"})
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    relaxed = relax(model, "lcn", example_input=x)
    assert relaxed.report.exact
    assert relaxed.model.training == model.training == training
    for mode in (training, not training, training):
        torch.testing.assert_close(relaxed.model.train(mode)(x), model.train(mode)(x), rtol=1e-9, atol=1e-9)
