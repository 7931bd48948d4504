"""What probes find in a network that several processes hold together is, on all of them, what they find where one process holds it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import anarch_core
from anarch_core.data import TensorData
from anarch_core.errors import ProbeError
from anarch_core.plugin import get_registry
from anarch_core.probe import ProbeContext
from anarch_core.probe.measuring import measured
from anarch_core.sharding import Shards, cuts_of
from anarch_core.testing.together import together

FAMILIES = ("efcn", "lcn", "shared", "tiled")

OPTIONS: dict[str, dict[str, Any]] = {
    "delta": {},
    "gradient": {"batch_size": 17},
    "ablation": {"random_masks": 2},
    "hessian": {
        "smallest": True,
        "top_k": 2,
        "trace": 2,
        "density": 1,
        "density_steps": 6,
        "subspaces": ("shared", "unshared", "off-local"),
        "layers": True,
        "gauss_newton": True,
        "subsets": 2,
        "max_products": 6,
    },
}


def context(family: str, shards: Shards | None) -> ProbeContext:
    """A relaxed network that has moved in every direction since its segment began, and data; all in float64."""
    torch.manual_seed(0)
    features = [nn.Conv2d(2, 5, 3, padding=1), nn.BatchNorm2d(5), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(5, 3, 3, stride=2, padding=2)]
    cnn = nn.Sequential(*features, nn.Flatten(), nn.Dropout(0.2), nn.Linear(27, 4)).double()
    x = torch.randn(60, 2, 6, 6, dtype=torch.float64)
    y = torch.arange(60) % 4
    data = TensorData(name="toy", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:], classes=4)
    alone = anarch_core.relax(cnn, family, example_input=x[:1], check=False).model
    reference = model = alone if shards is None else anarch_core.relax(cnn, family, example_input=x[:1], shards=shards, check=False).model
    model, cuts = copy.deepcopy(reference), cuts_of(reference)
    with torch.no_grad():
        for place, (name, parameter) in enumerate(model.named_parameters()):
            whole = alone.get_parameter(name)
            noise = torch.randn(whole.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(place))
            parameter.add_((cuts[name].of_whole(noise) if name in cuts else noise).view(parameter.shape), alpha=0.1)
    return ProbeContext(model=model, data=data, reference=reference, parent=cnn, seed=7, moment="end")


def found_by(shards: Shards, name: str, family: str) -> list[dict[str, Any]]:
    probe = get_registry().create("probe", name, OPTIONS[name])
    found = [measured(probe, context(family, way)) for way in (None, shards)]
    return [
        {
            **flat("scalars", dict(one.scalars)),
            **flat("details", dict(one.details)),
            **flat("tensors", {key: tensor.tolist() for key, tensor in one.tensors.items()}),
        }
        for one in found
    ]


def flat(name: str, value: Any) -> dict[str, Any]:
    """Numbers and texts by where they stand."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return {name: value}
    return {inner: one for key, held in value.items() for inner, one in flat(f"{name}.{key}", held).items()}


@pytest.mark.parametrize(
    ("name", "family", "processes"),
    [(name, family, 2) for name in OPTIONS for family in FAMILIES] + [("hessian", "efcn", 3), ("ablation", "tiled", 3)],
)
def test_a_measurement_is_that_of_one_process(name: str, family: str, processes: int) -> None:
    both = together(processes, found_by, name, family)
    alone, shared = both[0]
    assert list(shared) == list(alone)
    for key, expected in alone.items():
        # A bound is found to a hundredth, and what is nothing is rounding.
        close = 0.02 if key.endswith("error_bound") else 1e-10
        assert shared[key] == (pytest.approx(expected, rel=close, abs=1e-12) if isinstance(expected, float) else expected), key
    for _, other in both[1:]:
        assert other == shared  # to the last bit


def refused(shards: Shards, name: str, options: dict[str, Any], directly: bool) -> str:
    probe = get_registry().create("probe", name, options)
    try:
        probe.measure(context("efcn", shards)) if directly else measured(probe, context("efcn", shards))
    except ProbeError as error:
        return str(error)
    return ""


UNKNOWN = "does not measure networks that several processes hold together, as 2 do this one, or not with these options; measure"
EIGENVECTORS = {"top_k": 1, "eigenvectors": True}


@pytest.mark.parametrize(
    ("name", "options", "directly", "expected"),
    [
        ("weights", {}, False, UNKNOWN),
        ("hessian", EIGENVECTORS, False, UNKNOWN),
        ("hessian", EIGENVECTORS, True, "each would have a part of its eigenvectors; leave the option 'eigenvectors' out"),
    ],
)
def test_what_is_not_measured_is_refused_and_what_to_do_is_said(name: str, options: Any, directly: bool, expected: str) -> None:
    for message in together(2, refused, name, options, directly):
        assert expected in message
        assert directly or message.startswith(f"probe '{name}' of plugin")
