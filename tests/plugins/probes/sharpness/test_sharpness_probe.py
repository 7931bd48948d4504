"""The probe ``sharpness`` against the probes of gradient and Hessian, and a CNN against its relaxation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from anarch_core import relax
from anarch_core.data import TensorData
from anarch_core.plugin import get_registry
from anarch_core.probe.base import Measurement, ProbeContext
from anarch_plugins.probes.sharpness.options import SharpnessOptions
from anarch_plugins.probes.sharpness.probe import SharpnessProbe
from anarch_plugins.probes.sharpness.wording import numbers, numbers_in

FEW: dict[str, Any] = {"pairs": 2, "steps": 3, "starts": 1, "samples": 40}
CHEAP: dict[str, Any] = {**FEW, "definitions": ("sam",), "quadratic": False}


@pytest.fixture(scope="module")
def data() -> TensorData:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 1, 10, generator=generator, dtype=torch.float64)
    y = (x[:, 0, 2] > 0).long() + (x[:, 0, 7] > 0).long()
    return TensorData(name="toy", x_train=x, y_train=y, x_test=x[:20], y_test=y[:20], classes=3)


@pytest.fixture(scope="module")
def cnn(data: TensorData) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(1, 3, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(30, 3)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data.x_train), data.y_train).backward()
        optimizer.step()
    return model


@pytest.fixture(scope="module")
def efcn(cnn: nn.Module, data: TensorData) -> nn.Module:
    return relax(cnn, "efcn", example_input=data.x_train[:1]).model


def measure(model: nn.Module, data: TensorData, **options: Any) -> Measurement:
    return SharpnessProbe(SharpnessOptions(**options)).measure(ProbeContext(model=model, data=data))


def beside(probe: str, model: nn.Module, data: TensorData, **options: Any) -> Any:
    return get_registry().create("probe", probe, {"samples": 40, **options}).measure(ProbeContext(model=model, data=data)).scalars


def test_every_number_is_named_after_what_it_is_and_the_details_say_it(cnn, data) -> None:
    found = measure(cnn, data, **FEW, radii=(0.2,), filter_radii=(0.1,), noise=(0.3,))
    names = ["quadratic_0.2", "average_0.3", "worst_0.2", "sam_0.2"]
    names += ["adaptive_average_0.3", "adaptive_worst_0.2", "adaptive_sam_0.2"]
    names += ["filter_average_0.3", "filter_worst_0.1", "filter_sam_0.1"]
    assert [*found.scalars] == ["loss", *names, *(f"{name}_shared" for name in names)]
    assert {number.name for number in numbers_in(found.scalars)} == {*names, *(f"{name}_shared" for name in names)}
    assert [*found.details["definitions"]] == ["quadratic", "average", "worst", "sam", "plain", "adaptive", "filter", "all", "shared"]
    assert found.details["average_0.3"]["standard_error"] > 0
    assert found.details["worst_0.2"]["ascents"][0].keys() == {"start", "value", "steps", "last_increase", "converged"}
    assert found.details["lambda_max_shared"]["converged"]
    assert set(found.units.values()) == {data.objective.loss_unit}


def test_a_cnn_and_its_efcn_have_the_same_shared_numbers_at_the_switch(cnn, efcn, data) -> None:
    options = {**FEW, "definitions": ("worst", "sam")}
    here, there = measure(cnn, data, **options), measure(efcn, data, **options)
    shared = [name for name in here.scalars if name.endswith("_shared")]
    assert len(shared) == 12
    for name in shared:
        tolerance = 1e-3 if "quadratic" in name else 1e-8
        assert there.scalars[name] == pytest.approx(here.scalars[name], rel=tolerance), name
    assert there.scalars["worst_0.5"] != pytest.approx(here.scalars["worst_0.5"], rel=1e-3)


def test_shared_noise_means_the_same_in_both(cnn, efcn, data) -> None:
    options = {"definitions": ("average",), "quadratic": False, "samples": 40, "pairs": 20}
    here, there = measure(cnn, data, **options), measure(efcn, data, **options)
    for lengths in ("", "adaptive_", "filter_"):
        name = f"{lengths}average_0.1_shared"
        errors = [found.details[name]["standard_error"] for found in (here, there)]
        assert abs(there.scalars[name] - here.scalars[name]) < 4 * max(errors) < 1.2 * here.scalars[name], name


def test_small_radii_are_what_gradient_and_hessian_say(efcn, data) -> None:
    radius = 1e-5
    found = measure(efcn, data, **CHEAP | {"definitions": ("sam",), "quadratic": True}, lengths=("plain",), radii=(radius,)).scalars
    gradient, hessian = beside("gradient", efcn, data), beside("hessian", efcn, data)
    for part in ("", "_shared"):
        assert found[f"sam_{radius}{part}"] / radius == pytest.approx(gradient[f"norm{part}"], rel=1e-4)
        assert found[f"quadratic_{radius}{part}"] * 2 / radius**2 == pytest.approx(hessian[f"lambda_max{part}"], rel=1e-3)
    noisy = measure(efcn, data, samples=40, definitions=("average",), lengths=("plain",), noise=(1e-3,), pairs=60, shared=False)
    trace = beside("hessian", efcn, data, trace=300)["trace"]
    assert abs(noisy.scalars["average_0.001"] * 2e6 - trace) < 4 * noisy.details["average_0.001"]["standard_error"] * 2e6 + 0.05 * trace


def test_larger_radii_are_no_less_sharp(efcn, data) -> None:
    options = {**FEW, "definitions": ("worst",), "quadratic": False}
    found = measure(efcn, data, **options, radii=(0.5, 0.1, 2.0), filter_radii=(0.2, 0.1))
    for lengths, radii in (("", (0.1, 0.5, 2.0)), ("adaptive_", (0.1, 0.5, 2.0)), ("filter_", (0.1, 0.2))):
        values = [found.scalars[f"{lengths}worst_{radius:g}_shared"] for radius in radii]
        assert values == sorted(values)
        assert values[0] > 0


def test_where_there_are_no_common_coordinates_the_shared_numbers_are_left_out(data) -> None:
    model = nn.Sequential(nn.Conv1d(1, 2, 3, padding=1, padding_mode="reflect"), nn.Flatten(), nn.Linear(20, 3)).double()
    found = measure(model, data, **CHEAP)
    assert found.scalars["sam_0.05"] is not None
    assert found.scalars["sam_0.05_shared"] is None
    assert "reflect" in found.details["sam_0.05_shared"]["not_measured"]


def test_a_network_that_diverged_has_no_sharpness(data) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(10, 3)).double()
    with torch.no_grad():
        model[1].weight.fill_(float("inf"))
    found = measure(model, data, **FEW)
    assert set(found.scalars.values()) == {None}
    assert found.details["worst_0.05"] == {"not_measured": "the loss is nan"}


def test_a_gradient_that_overflows_leaves_out_what_goes_along_it() -> None:
    x, y = torch.full((6, 2), 1e35), torch.arange(6) % 3
    data = TensorData(name="huge", x_train=x, y_train=y, x_test=x, y_test=y, classes=3)
    model = nn.Linear(2, 3, bias=False)
    with torch.no_grad():
        model.weight.zero_()
    options = {**CHEAP, "definitions": ("average", "sam"), "lengths": ("plain",), "shared": False}
    found = measure(model, data, **options, noise=(1e-36,))
    assert found.scalars["average_1e-36"] is not None
    assert found.scalars["sam_0.05"] is None
    assert found.details["sam_0.05"]["not_measured"] == "the length of a direction, as of the gradient, is not finite in torch.float32"


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "worst_0.5_shared"),
        ({"shared": False, "radii": (0.1,)}, "worst_0.1"),
        ({"definitions": ("average", "sam")}, "average_0.1_shared"),
        ({"lengths": ("adaptive", "plain")}, "adaptive_worst_0.5_shared"),
        ({"lengths": ("filter",), "definitions": ("sam",)}, "filter_sam_0.01_shared"),
    ],
)
def test_the_column_of_the_summary(data, options: dict[str, Any], name: str) -> None:
    probe = SharpnessProbe(SharpnessOptions(**options))
    assert probe.headlines(data.objective) == [name]
    assert name in [number.name for number in numbers(probe.options)]
