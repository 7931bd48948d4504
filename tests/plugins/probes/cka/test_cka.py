"""The probe ``cka``: what it says of networks that are known, and what it tells of layers that have no similarity."""

from __future__ import annotations

import json

import attrs
import pytest
import torch
from torch import nn

from anarch_core import relax
from anarch_core.data import TensorData
from anarch_core.errors import ProbeError
from anarch_core.probe.base import ProbeContext
from anarch_core.similarity import OUTPUT, cka
from anarch_plugins.probes.cka.options import CkaOptions
from anarch_plugins.probes.cka.probe import CkaProbe


@pytest.fixture
def data() -> TensorData:
    torch.manual_seed(0)
    x, y = torch.randn(50, 1, 8, dtype=torch.float64), torch.randint(3, (50,))
    return TensorData(name="toy", x_train=x, y_train=y, x_test=x[:20] + 1, y_test=y[:20], classes=3)


@pytest.fixture
def cnn() -> nn.Module:
    torch.manual_seed(1)
    layers = [nn.Conv1d(1, 3, 3, padding=1), nn.BatchNorm1d(3), nn.ReLU(), nn.Conv1d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3)]
    return nn.Sequential(*layers).double()


def moved(model: nn.Module, by: float = 0.3) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=by)
    return model


def measure(context: ProbeContext, **options):
    return CkaProbe(CkaOptions(**options)).measure(context)


@pytest.mark.parametrize("relaxation", ["efcn", "lcn", "shared", "tiled", "grow"])
def test_at_the_switch_every_layer_is_that_of_the_parent(cnn, data, relaxation: str) -> None:
    model = relax(cnn, relaxation, example_input=data.x_train[:1]).model
    found = measure(ProbeContext(model=model, data=data, parent=cnn))
    assert {name: abs(value - 1) < 1e-10 for name, value in found.scalars.items()} == {
        "cka_parent_mean": True,
        "cka_parent_min": True,
        "cka_parent_output": True,
    }
    assert set(found.details["against"]["parent"]["layers"]) == {"0", "1", "3", "6"}


def test_it_tells_the_similarity_with_every_network_that_is_asked_for(cnn, data) -> None:
    model = moved(relax(cnn, "efcn", example_input=data.x_train[:1]).model)
    reference = moved(relax(cnn, "efcn", example_input=data.x_train[:1]).model, by=0.1)
    context = ProbeContext(model=model, data=data, parent=cnn, reference=reference)
    found = measure(context, against=("parent", "reference"), part="train", samples=30, batch_size=10)
    for name, other in (("parent", cnn), ("reference", reference)):
        expected = cka(model, other, data.x_train, samples=30, batch_size=10)
        layers = {layer: value for layer, value in expected.layers.items() if layer != OUTPUT}
        assert found.details["against"][name] == {
            "layers": layers,
            "output": expected.layers[OUTPUT],
            "undefined": {},
            "rows": list(expected.rows),
            "columns": list(expected.columns),
        }
        assert found.scalars[f"cka_{name}_mean"] == pytest.approx(sum(layers.values()) / 4)
        assert found.scalars[f"cka_{name}_min"] == min(layers.values())
        assert found.scalars[f"cka_{name}_output"] == expected.layers[OUTPUT]
        assert torch.equal(found.tensors[name], expected.matrix)
        assert found.tensors[f"{name}_layers"].tolist() == list(layers.values())
    assert (found.details["samples"], found.details["minibatches"], found.details["data"]) == (30, 3, "train")
    assert found.scalars["cka_parent_mean"] < 0.99


def test_a_dead_layer_is_left_out_of_mean_and_least_value_and_is_named(cnn, data) -> None:
    model = moved(relax(cnn, "efcn", example_input=data.x_train[:1]).model)
    with torch.no_grad():
        model[6].weight.zero_()
    found = measure(ProbeContext(model=model, data=data, parent=cnn))
    layers = found.details["against"]["parent"]["layers"]
    assert layers["6"] is None
    assert found.scalars["cka_parent_output"] is None
    assert found.scalars["cka_parent_mean"] == pytest.approx(sum(layers[name] for name in ("0", "1", "3")) / 3)
    assert found.details["against"]["parent"]["undefined"]["6"] == "its output is the same for all samples, but for one at most"
    assert found.note.startswith("measured in part: no similarity of 6 (its output is the same for all samples, but for one at most)")
    assert found.tensors["parent_layers"].isnan().tolist() == [False, False, False, True]
    json.dumps(dict(found.details), allow_nan=False)


def test_what_cannot_be_measured_is_refused(cnn, data) -> None:
    context = ProbeContext(model=cnn, data=data, reference=cnn)
    with pytest.raises(ProbeError, match="there is no parent to compare the network with"):
        measure(context)
    with pytest.raises(ProbeError, match="needs data"):
        measure(attrs.evolve(context, data=None), against=("reference",))
    few = attrs.evolve(data, x_test=data.x_test[:3], y_test=data.y_test[:3])
    with pytest.raises(ProbeError, match="takes at least 4 samples at once, got 3"):
        measure(attrs.evolve(context, data=few), against=("reference",))
