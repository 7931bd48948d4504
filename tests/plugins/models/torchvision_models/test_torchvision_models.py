"""Models of torchvision by name, and weights for them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from anarch_core.errors import ConfigError, OptionError
from anarch_core.models import build_model

pytest.importorskip("torchvision", exc_type=Exception)

IMAGES = {"input_shape": (3, 32, 32), "classes": 10}


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "shufflenet_v2_x0_5", "googlenet", "mobilenet_v3_small"])
def test_models_are_built_with_the_classes_of_the_data(name: str) -> None:
    model = build_model(f"torchvision:{name}", input_shape=(3, 64, 64), classes=7).eval()
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


def test_unknown_model_has_close_matches() -> None:
    with pytest.raises(ConfigError, match="no classification model 'resnet81'; did you mean 'resnet18'"):
        build_model("torchvision:resnet81", **IMAGES)


def test_a_name_is_needed() -> None:
    with pytest.raises(OptionError, match="needs a value for 'model'"):
        build_model("torchvision", **IMAGES)


def test_inputs_too_small_for_the_model() -> None:
    with pytest.raises(ConfigError, match=r"model='inception_v3'\) does not take inputs of shape \(3, 32, 32\)"):
        build_model("torchvision:inception_v3", **IMAGES)


@pytest.mark.parametrize(
    ("suffix", "prefix"), [(".safetensors", ""), (".pth", ""), (".pth", "module."), (".safetensors", "_orig_mod.module.")]
)
def test_weights_are_loaded_except_for_another_head(tmp_path: Path, suffix: str, prefix: str) -> None:
    state = build_model("torchvision:squeezenet1_1", seed=1, **IMAGES).state_dict()
    path = tmp_path / f"weights{suffix}"
    named = {prefix + name: tensor for name, tensor in state.items()}
    if suffix == ".pth":
        torch.save(named, path)
    else:
        save_file(named, path)
    loaded = build_model("torchvision:squeezenet1_1", options={"weights": path}, seed=2, **IMAGES).state_dict()
    assert all(torch.equal(state[name], loaded[name]) for name in state)


def test_head_for_other_classes_keeps_its_initialisation(tmp_path: Path) -> None:
    state = build_model("torchvision:resnet18", seed=1, **IMAGES).state_dict()
    save_file(state, tmp_path / "weights.safetensors")
    build = {"options": {"weights": tmp_path / "weights.safetensors"}, "input_shape": (3, 32, 32), "classes": 4, "seed": 2}
    loaded = build_model("torchvision:resnet18", **build).state_dict()
    fresh = build_model("torchvision:resnet18", input_shape=(3, 32, 32), classes=4, seed=2).state_dict()
    assert torch.equal(loaded["conv1.weight"], state["conv1.weight"])
    assert torch.equal(loaded["fc.weight"], fresh["fc.weight"])


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    save_file(build_model("torchvision:squeezenet1_1", **IMAGES).state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(ConfigError, match="do not fit ResNet: "):
        build_model("torchvision:resnet18", options={"weights": tmp_path / "weights.safetensors"}, **IMAGES)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_unreadable_weights_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(b"not weights at all")
    with pytest.raises(ConfigError, match="cannot read the weights"):
        build_model("torchvision:resnet18", options={"weights": path}, **IMAGES)
