"""Building a model from its name, so that the same record builds it again in another process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from anarch_core.errors import ConfigError, one_line, warn
from anarch_core.network import copied, in_evaluation_mode
from anarch_core.objective.outputs import require_outputs
from anarch_core.plugin.blame import expected
from anarch_core.plugin.factories import call_factory, is_factory
from anarch_core.plugin.options import to_dict
from anarch_core.plugin.records import read_only
from anarch_core.plugin.registry import Registry, get_registry

__all__ = ["ModelSpec", "build_model", "flattened_size", "model_spec"]


@attrs.frozen(kw_only=True)
class ModelSpec:
    """What a model was built from: plain data that goes into checkpoints.

    Attributes:
        name: a registered model (``"cnn1d"``) or an import string (``"package.module:factory"``).
        options: options that differ from their defaults, JSON-ready; keyword arguments for an import string.
        input_shape: shape of one input without the batch dimension, [channels, *spatial].
        classes: number of outputs: of classes, or of numbers to be predicted.
        output_shape: shape of one output; None for ``(classes,)``.
    """

    name: str
    options: Mapping[str, Any] = attrs.field(factory=dict, converter=read_only)
    input_shape: tuple[int, ...]
    classes: int
    output_shape: tuple[int, ...] | None = None

    def __str__(self) -> str:
        """For messages: ``torchvision (model='resnet18')``."""
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"{self.name} ({options})" if options else self.name

    @property
    def outputs(self) -> tuple[int, ...]:
        """Shape of one output."""
        return (self.classes,) if self.output_shape is None else self.output_shape

    @property
    def is_import(self) -> bool:
        """Whether the model is a factory of the user's, not a registered component."""
        return ":" in self.name

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; :meth:`from_dict` is its inverse."""
        record = {"name": self.name, "options": dict(self.options), "input_shape": list(self.input_shape), "classes": self.classes}
        return record if self.output_shape is None else {**record, "output_shape": list(self.output_shape)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> ModelSpec:
        """The record that :meth:`to_dict` wrote.

        Raises:
            ConfigError: a key is missing or a value has the wrong type.
        """
        try:
            name, options = record["name"], record["options"]
            shape, classes = tuple(record["input_shape"]), record["classes"]
            outputs = tuple(record.get("output_shape") or ())
        except (KeyError, TypeError) as error:
            msg = f"not a model record: {record!r:.200}; expected the keys name, options, input_shape and classes"
            raise ConfigError(msg) from error
        sizes = all(isinstance(size, int) and size > 0 for size in (*shape, classes, *outputs))
        if not (isinstance(name, str) and isinstance(options, Mapping) and sizes):
            msg = f"not a model record: {record!r:.200}; expected a name, a table of options, a list of positive integers and another"
            raise ConfigError(msg)
        return cls(name=name, options=options, input_shape=shape, classes=classes, output_shape=outputs or None)

    def build(self, *, seed: int = 0, registry: Registry | None = None, trusted: bool = False) -> nn.Module:
        """A freshly initialised model on the CPU, in training mode.

        Args:
            seed: the weights are a function of it; the caller's random state is left as it was.
            registry: where names are looked up, the installed plugins by default.
            trusted: whether the user wrote this record. If not, as when it was read from a checkpoint, import strings are not followed and
                options that name files (initial weights) are left at their defaults. Nor is the model called with an input of the recorded
                shape, which may be one of gigabytes, unless its parameters get their shapes by that.

        Raises:
            ConfigError: the model cannot be built, or does not take such inputs.
            UnknownComponentError: no plugin provides the model.
        """
        if self.is_import and not trusted:
            msg = f"the model was built by {self.name!r}, and nothing that a file names is imported; build it yourself and pass it along"
            raise ConfigError(msg)
        with _seeded(seed):
            model = self._call() if self.is_import else self.make(registry=registry, trusted=trusted)
            if not trusted and isinstance(model, nn.Module) and not any(map(nn.parameter.is_lazy, model.parameters())):
                return model
            return _checked(model, self)

    def _call(self) -> object:
        available = {"input_shape": self.input_shape, "classes": self.classes, "num_classes": self.classes, "outputs": self.classes}
        return call_factory("model", self.name, available, self.options)

    def make(self, *, registry: Registry | None = None, trusted: bool = False) -> Any:
        """What the plugin of a registered model gives, whatever it is; the random state goes on. Arguments as for :meth:`build`."""
        registry = registry or get_registry()
        info = registry.find("model", self.name)
        options = registry.parse_options(info, self.options)
        if options is not None and not trusted:
            options = _without_files(options)
        return expected(registry.origin(info), "it", registry.call(info, self.input_shape, self.classes, options), nn.Module)


def model_spec(
    spec: str,
    *,
    input_shape: tuple[int, ...],
    classes: int,
    options: Mapping[str, Any] | None = None,
    registry: Registry | None = None,
) -> ModelSpec:
    """What ``spec`` means: a registered model, one of a model's zoo, or a factory of the user's; in this order.

    Args:
        spec: ``"cnn1d"``, ``"torchvision:resnet18"``, ``"resnet18"`` (of the one zoo that has it, if no model has that name) or
            ``"package.module:factory"``.
        input_shape: shape of one input, [channels, *spatial].
        classes: number of outputs.
        options: options by name.
        registry: where names are looked up, the installed plugins by default.

    Raises:
        UnknownComponentError: nobody knows the name; the message has close matches.
        ComponentConflictError: several plugins have it.
        OptionError: an option is unknown or has a value that is not allowed.
    """
    registry = registry or get_registry()
    name = registry.spelt_out("model", spec)
    if is_factory("model", spec, registry):
        return ModelSpec(name=spec, options=dict(options or {}), input_shape=input_shape, classes=classes)
    info, given = registry.chosen("model", name, options)
    parsed = registry.parse_options(info, given)
    changed = {} if parsed is None else to_dict(parsed, only_changed=True)
    return ModelSpec(name=info.name, options=changed, input_shape=input_shape, classes=classes)


def build_model(
    spec: str,
    *,
    input_shape: tuple[int, ...],
    classes: int,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    registry: Registry | None = None,
) -> nn.Module:
    """The model that the user asked for; see :func:`model_spec` for the arguments and :meth:`ModelSpec.build` for what it does."""
    record = model_spec(spec, input_shape=input_shape, classes=classes, options=options, registry=registry)
    return record.build(seed=seed, registry=registry, trusted=True)


def flattened_size(features: nn.Module, input_shape: tuple[int, ...]) -> int:
    """How many numbers ``features`` gives for one input, for the linear layer that follows. Nothing is allocated.

    Raises:
        ConfigError: the inputs do not fit; most often they are too small.
    """
    try:
        output: torch.Tensor = copied(features).to("meta").eval()(torch.empty(1, *input_shape, device="meta"))
    except RuntimeError as error:
        msg = f"inputs of shape {input_shape} do not fit the network: {one_line(error)}"
        raise ConfigError(msg) from error
    return output.numel()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    # The generator of the CPU alone: torch.manual_seed would also reseed the accelerators of the caller.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _without_files(options: Any) -> Any:
    """The options with every path at its default: the tensors that follow in the checkpoint replace what the files held."""
    paths = [field for field in attrs.fields(type(options)) if isinstance(getattr(options, field.name), Path)]
    return attrs.evolve(options, **{field.name: field.default for field in paths})


def _checked(model: object, spec: ModelSpec) -> nn.Module:
    """``model``, once it has given what its record says for two inputs."""
    if not isinstance(model, nn.Module):
        msg = f"model {spec} gave a {type(model).__name__}, expected a torch.nn.Module"
        raise ConfigError(msg)
    try:
        with torch.no_grad(), in_evaluation_mode(model):
            output = model(torch.zeros(2, *spec.input_shape))
    except Exception as error:
        msg = f"model {spec} does not take inputs of shape {spec.input_shape}: {one_line(error)}"
        raise ConfigError(msg) from error
    require_outputs(output, 2, spec.outputs, f"model {spec}", f"two inputs of shape {spec.input_shape} in evaluation mode")
    return model


def warn_of_batch_dependence(model: nn.Module) -> None:
    """Warn of a network whose outputs in evaluation depend on which samples are in the batch: measurements of it change with its size."""
    names = [name for name, module in model.named_modules() if isinstance(module, _BatchNorm) and module.running_mean is None]
    if names:
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        msg = (
            f"outputs depend on the batch: {names[0] or type(model).__name__}{others}, without running statistics, normalises by the "
            "samples that are evaluated together, so another batch size gives other numbers"
        )
        warn(msg, UserWarning)


def input_dtype(model: nn.Module, x: torch.Tensor) -> torch.dtype:
    """That of a network's first floating-point parameter, in which it is given its inputs; that of ``x`` where it has none."""
    return next((parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()), x.dtype)
