from __future__ import annotations

import pytest
import torch

from anarch_core.plugin.registry import get_registry
from anarch_core.relaxation.base import AbstractRelaxation
from anarch_core.relaxation.fingerprint import fingerprint


def relaxation(name: str, **options: object) -> AbstractRelaxation:
    made: AbstractRelaxation = get_registry().create("relaxation", name, options)
    return made


def test_what_does_the_same_has_the_same_digest_and_draws_no_random_numbers():
    before = torch.random.get_rng_state()
    assert fingerprint(relaxation("lcn"), 2) == fingerprint(relaxation("lcn"), 2)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_relaxations_options_and_dimensions_differ():
    made = [fingerprint(relaxation(*each), 1) for each in (("lcn",), ("efcn",), ("shared",), ("tiled",))]
    made += [fingerprint(relaxation("tiled", period=3), 1), fingerprint(relaxation("lcn"), 2)]
    assert len({*made}) == len(made)
    assert all(len(digest) == 64 for digest in made)


@pytest.mark.parametrize("dimensions", [0, 4])
def test_what_is_no_convolution_has_none(dimensions):
    assert fingerprint(relaxation("lcn"), dimensions) == ""


def test_weights_in_another_order_are_noticed(monkeypatch):
    made = relaxation("lcn")
    before, lift = fingerprint(made, 1), type(made).lift

    def turned(self, site):
        layer = lift(self, site)
        with torch.no_grad():
            layer.weight.copy_(layer.weight.flip(0))
        return layer

    monkeypatch.setattr(type(made), "lift", turned)
    assert fingerprint(made, 1) != before


def test_another_result_of_the_same_weights_is_noticed(monkeypatch):
    made = relaxation("lcn")
    before, layer = fingerprint(made, 1), type(made).layer_class
    forward = layer.forward
    monkeypatch.setattr(layer, "forward", lambda self, x: 1.001 * forward(self, x))
    assert fingerprint(made, 1) != before
