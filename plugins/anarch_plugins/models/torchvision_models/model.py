"""Models of torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from anarch_core.errors import ConfigError, close_matches, did_you_mean
from anarch_plugins.models.torchvision_models.options import TorchvisionModelOptions
from anarch_plugins.vision import torchvision


def classification_models() -> list[str]:
    """Names of torchvision's classification models.

    Raises:
        MissingDependencyError: torchvision cannot be imported.
    """
    models = torchvision("models")
    return list(models.list_models(module=models))


def build(input_shape: tuple[int, ...], classes: int, options: TorchvisionModelOptions) -> nn.Module:
    """A model of torchvision with a head for ``classes`` classes.

    Args:
        input_shape: [3, height, width]; most models need at least 32 x 32, some much more.
        classes: number of outputs.
        options: which model, and weights to start from.

    Raises:
        ConfigError: torchvision has no such classification model, or the weights do not fit it.
        MissingDependencyError: torchvision cannot be imported.
    """
    known = classification_models()
    if options.model not in known:
        hint = did_you_mean(close_matches(options.model, known)) or f" (known: {', '.join(known)})"
        msg = f"torchvision has no classification model {options.model!r}{hint}"
        raise ConfigError(msg)
    if len(input_shape) != 3:
        msg = f"torchvision's models take images [3, height, width], not inputs of shape {input_shape}; for signals use cnn1d"
        raise ConfigError(msg)
    arguments = _special_arguments(options.model, input_shape)
    try:
        model: nn.Module = torchvision("models").get_model(options.model, weights=None, num_classes=classes, **arguments)
    except (ValueError, RuntimeError) as error:
        msg = f"torchvision's {options.model} cannot be built for inputs of shape {input_shape}: {' '.join(str(error).split())}"
        raise ConfigError(msg) from error
    if options.weights is not None:
        _load_weights(model, options.weights)
    return model


def _special_arguments(name: str, input_shape: tuple[int, ...]) -> dict[str, Any]:
    """What a few models need to give one tensor for inputs of this size."""
    if name in ("googlenet", "inception_v3"):
        return {"aux_logits": False, "init_weights": True}
    if name.startswith("vit_"):
        return {"image_size": input_shape[1]}
    if name.startswith("maxvit_"):
        return {"input_size": input_shape[1:]}
    return {}


def _state_of(path: Path) -> dict[str, torch.Tensor]:
    """The state dict in a file; pickles are read as far as they are data."""
    if not path.is_file():
        msg = f"cannot read the weights {str(path)!r}: there is no such file"
        raise ConfigError(msg)
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of what a pickle may raise there is no list
        msg = f"cannot read the weights {str(path)!r}: {type(error).__name__}: {str(error).partition(chr(10))[0]:.300}"
        raise ConfigError(msg) from error
    if not isinstance(state, dict) or not all(isinstance(name, str) and isinstance(t, torch.Tensor) for name, t in state.items()):
        msg = f"{str(path)!r} holds no state dict, expected tensors by name; write one with safetensors.torch.save_file"
        raise ConfigError(msg)
    return state


def _load_weights(model: nn.Module, path: Path) -> None:
    """Load a state dict, except for a head with another number of classes, which keeps its initialisation."""
    state = _state_of(path)
    for prefix in ("module.", "_orig_mod.", "module."):  # of DataParallel and torch.compile, in any order
        consume_prefix_in_state_dict_if_present(state, prefix)
    head = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1:]
    own = model.state_dict()
    state = {
        name: own[name] if name.rpartition(".")[0] in head and name in own and own[name].shape != tensor.shape else tensor
        for name, tensor in state.items()
    }
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        msg = f"the weights {str(path)!r} do not fit {type(model).__name__}: {' '.join(str(error).split())[:300]}"
        raise ConfigError(msg) from error
