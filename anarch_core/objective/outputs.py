"""What networks give, and whether it is what is to be learnt."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn

from anarch_core.errors import ConfigError
from anarch_core.objective.base import AbstractObjective


def outputs_of(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor, objective: AbstractObjective) -> torch.Tensor:
    """What a network gives for inputs, [n, *output_shape].

    Args:
        model: the network.
        inputs: [n, ...].
        targets: that it is to meet, [n, ...].
        objective: what it is trained for.

    Raises:
        ConfigError: it is something else than floating-point numbers of the shape that the objective expects.
    """
    return fitting(model(inputs), model, targets, objective)


def fitting(output: object, model: nn.Module, targets: torch.Tensor, objective: AbstractObjective) -> torch.Tensor:
    """What a network gave, once it is what the objective expects for the targets.

    Raises:
        ConfigError: as for :func:`outputs_of`.
    """
    shape = objective.output_shape(targets, 0)  # 0 where any number of classes will do
    if isinstance(output, torch.Tensor) and output.is_floating_point() and _fits(output, (len(targets), *shape)):
        return output
    mode = "training" if model.training else "evaluation"
    expected = (len(targets), *(size or "classes" for size in shape))
    given = f"{len(targets)} inputs in {mode} mode"
    raise _unlike(output, expected, f"the network {type(model).__name__}", given, f"let it end in {objective.gives}")


def _fits(output: torch.Tensor, shape: Sequence[int]) -> bool:
    return output.ndim == len(shape) and all(asked in (0, size) for size, asked in zip(output.shape, shape, strict=True))


def require_outputs(output: object, samples: int, shape: Sequence[int], network: str, given: str) -> torch.Tensor:
    """What a network gave, once it is floating-point numbers of a shape for each sample.

    Args:
        output: of the network.
        samples: it was given.
        shape: expected for each of them.
        network: for the message.
        given: likewise, what it was given: ``"two inputs in evaluation mode"``.

    Raises:
        ConfigError: it is something else; the message says what.
    """
    if isinstance(output, torch.Tensor) and output.shape == (samples, *shape) and output.is_floating_point():
        return output
    what = "let it end in one number for each class of each sample"
    if len(shape) > 1:
        what = f"let it end in numbers of shape {tuple(shape)} for each sample"
    elif isinstance(output, torch.Tensor) and output.ndim == 2 and len(output) == samples:
        what = "give its last layer as many outputs as there are classes, or numbers to predict"
    raise _unlike(output, (samples, *shape), network, given, what)


def _unlike(output: object, shape: Sequence[object], network: str, given: str, what: str) -> ConfigError:
    """The error about outputs of another shape or type; ``what`` says what to do about the shape."""
    if not isinstance(output, torch.Tensor):
        what = "switch auxiliary outputs off where it is built (aux_logits=False), or wrap it in a module that returns the logits alone"
    elif not output.is_floating_point():
        what = "let it give scores that can be differentiated, not labels"
    expected = ", ".join(map(str, shape))
    return ConfigError(f"{network} gives {_described(output)} for {given}, expected a tensor of ({expected}); {what}")


def _described(output: object) -> str:
    """What a network gave, in words."""
    if isinstance(output, torch.Tensor):
        return f"{tuple(output.shape)}" + ("" if output.is_floating_point() else f" of {str(output.dtype).removeprefix('torch.')}")
    names: object = list(output) if isinstance(output, Mapping) else getattr(output, "_fields", None)
    if names is None and dataclasses.is_dataclass(output):
        names = [field.name for field in dataclasses.fields(output)]
    if isinstance(names, Iterable):
        return f"a {type(output).__name__} ({', '.join(map(str, names))})"
    return f"a {type(output).__name__}" + (f" of {len(output)}" if isinstance(output, (tuple, list)) else "")
