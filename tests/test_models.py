"""Models from names: what a name means, that weights are a function of the seed, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from anarch_core.errors import ConfigError, OptionError, UnknownComponentError
from anarch_core.models import ModelSpec, build_model, flattened_size, model_spec

IMAGES = {"input_shape": (3, 32, 32), "classes": 10}

FACTORIES = """
import torch

def by_keywords(input_shape, classes, width=4):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, width), torch.nn.Linear(width, classes))

def as_torchvision(num_classes):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, num_classes))

def without_arguments():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10))

class Network(torch.nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.head = torch.nn.Linear(3072, classes)

    def forward(self, x):
        return self.head(x.flatten(1))

def not_a_model():
    return 3

def failing():
    raise RuntimeError("no weights today")

def wrong_head(classes):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, classes + 1))

number = 3
"""


@pytest.fixture
def factories(module_of: Callable[[str], str]) -> str:
    """Name of a module in the working directory."""
    return module_of(FACTORIES)


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# --- what a name means


def test_registered_name_with_and_without_a_value() -> None:
    assert model_spec("vanilla-cnn", **IMAGES).options == {}
    assert model_spec("vanilla-cnn:8", **IMAGES).options == {"channels": 8}
    assert model_spec("vanilla-cnn", options={"channels": 8}, **IMAGES) == model_spec("vanilla-cnn:8", **IMAGES)


def test_options_at_their_default_are_not_recorded() -> None:
    assert model_spec("vanilla-cnn:64", **IMAGES) == model_spec("vanilla-cnn", **IMAGES)


def test_bare_torchvision_name_is_found_when_no_plugin_has_it() -> None:
    pytest.importorskip("torchvision", exc_type=Exception)
    assert model_spec("resnet18", **IMAGES) == model_spec("torchvision:resnet18", **IMAGES)
    assert model_spec("alexnet", **IMAGES).name == "alexnet"


@pytest.mark.parametrize("factory", ["by_keywords", "as_torchvision", "without_arguments", "Network"])
def test_factory_gets_the_arguments_it_declares(factories: str, factory: str) -> None:
    model = build_model(f"{factories}:{factory}", **IMAGES)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_factory_gets_options_as_keywords(factories: str) -> None:
    spec = model_spec(f"{factories}:by_keywords", options={"width": 7}, **IMAGES)
    model = spec.build(trusted=True)
    assert isinstance(model, nn.Sequential)
    assert model[1].out_features == 7


# --- building


@pytest.mark.parametrize("name", ["vanilla-cnn", "resnet20"])
def test_weights_are_a_function_of_the_seed(name: str) -> None:
    first, again, other = (build_model(name, seed=seed, **IMAGES).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_building_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    build_model("vanilla-cnn", **IMAGES)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_built_model_is_in_training_mode_and_unused() -> None:
    model = build_model("resnet20", **IMAGES)
    assert all(module.training for module in model.modules())
    assert all(not module.num_batches_tracked for module in model.modules() if isinstance(module, nn.BatchNorm2d))


def test_flattened_size_allocates_nothing_and_changes_nothing() -> None:
    layer = nn.Conv2d(3, 4, 3)
    assert flattened_size(layer, (3, 8, 8)) == 4 * 6 * 6
    assert layer.weight.device.type == "cpu"


# --- the record


def test_record_survives_json() -> None:
    spec = model_spec("vanilla-cnn:8", **IMAGES)
    again = ModelSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    assert parameters(again.build()) == parameters(build_model("vanilla-cnn:8", **IMAGES))


def test_record_from_a_file_never_imports(factories: str) -> None:
    spec = ModelSpec.from_dict(model_spec(f"{factories}:failing", **IMAGES).to_dict())
    with pytest.raises(ConfigError, match="nothing that a file names is imported"):
        spec.build()


def test_record_from_a_file_opens_no_other_file(tmp_path: Path) -> None:
    pytest.importorskip("torchvision", exc_type=Exception)
    spec = ModelSpec(name="torchvision", options={"model": "resnet18", "weights": str(tmp_path / "gone.safetensors")}, **IMAGES)
    assert parameters(spec.build()) == 11_181_642
    with pytest.raises(ConfigError, match=r"gone\.safetensors"):
        spec.build(trusted=True)


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"name": "cnn1d"},
        {"name": 3, "options": {}, "input_shape": [1], "classes": 2},
        {"name": "a", "options": {}, "input_shape": 3, "classes": 2},
    ],
)
def test_damaged_record_is_refused(record: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="not a model record"):
        ModelSpec.from_dict(record)


# --- what is refused, each in one line


def test_unknown_name_has_close_matches() -> None:
    with pytest.raises(UnknownComponentError, match="vanilla-cnn"):
        build_model("vanila-cnn", **IMAGES)


def test_unknown_name_says_when_torchvision_could_not_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        msg = f"No module named {name!r}"
        raise ModuleNotFoundError(msg)

    monkeypatch.setattr("anarch_plugins.vision.importlib", SimpleNamespace(import_module=fail))
    with pytest.raises(
        UnknownComponentError, match=r"the models of torchvision were not searched: torchvision is needed.*pip install torchvision"
    ):
        build_model("resnet18", **IMAGES)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("missing", "has no function or class 'missing'"),
        ("number", "has no function or class 'number'"),
        ("not_a_model", r"gave a int, expected a torch\.nn\.Module"),
        ("failing", r"the call failing\(\) failed: RuntimeError: no weights today"),
        ("wrong_head", r"gives \(2, 11\) for two inputs of shape \(3, 32, 32\) in evaluation mode, expected a tensor of \(2, 10\)"),
    ],
)
def test_factory_that_cannot_be_used(factories: str, factory: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build_model(f"{factories}:{factory}", **IMAGES)
    assert "\n" not in str(caught.value)


def test_module_that_cannot_be_imported() -> None:
    with pytest.raises(ConfigError, match=r"cannot import the module 'no_such_module': ModuleNotFoundError"):
        build_model("no_such_module:build", **IMAGES)


def test_inputs_that_a_model_cannot_take() -> None:
    with pytest.raises(ConfigError, match=r"cnn1d takes signals .* not inputs of shape \(3, 32, 32\)"):
        build_model("cnn1d", **IMAGES)
    with pytest.raises(ConfigError, match=r"inputs of shape \(3, 20, 20\) do not fit the network"):
        build_model("vanilla-cnn", input_shape=(3, 20, 20), classes=10)


def test_value_for_a_model_without_options() -> None:
    with pytest.raises(OptionError, match="has no options"):
        build_model("resnet20:3", **IMAGES)
