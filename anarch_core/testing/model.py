"""What a model promises."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from anarch_core import load, save
from anarch_core.errors import AnarchError, PluginError
from anarch_core.models import ModelSpec, build_model, model_spec
from anarch_core.plugin.options import option_fields, spec_options
from anarch_core.relaxation.verbs import plan
from anarch_core.testing.component import ComponentConformance
from anarch_core.testing.snapshot import Snapshot


class ModelConformance(ComponentConformance):
    """Tests of a model.

    Attributes:
        input_shape: shape of an input that it takes, [channels, *spatial].
        classes: number of outputs to ask for.
        relaxation: one that the model is there to be relaxed with.
    """

    kind = "model"
    arguments = ("input_shape", "classes", "options")
    input_shape: ClassVar[tuple[int, ...]] = (3, 32, 32)
    classes: ClassVar[int] = 10
    relaxation: ClassVar[str] = "efcn"

    @property
    def spec(self) -> ModelSpec:
        """The record of the model."""
        return model_spec(
            self.info.name, input_shape=self.input_shape, classes=self.classes, options=dict(self.options), registry=self.registry
        )

    def build(self, seed: int = 0) -> nn.Module:
        """The model."""
        return self.spec.build(seed=seed, registry=self.registry, trusted=True)

    def inputs(self, n: int) -> torch.Tensor:
        """Random inputs, [n, channels, *spatial]."""
        return torch.randn(n, *self.input_shape, generator=torch.Generator().manual_seed(0))

    def test_zoo_names_its_models(self) -> None:
        """A zoo gives names, each once, that the first option takes; the model that is tested is one of them."""
        if self.info.zoo is None:
            return
        names, first = self.registry.zoo(self.info), option_fields(self.info.options)[0]
        twice = sorted({str(name) for name in names if names.count(name) > 1})
        assert not twice, f"the zoo gives {', '.join(twice)} more than once"
        for name in names:
            taken = spec_options(self.info.options, name, name=self.info.name)[first.name] if isinstance(name, str) else None
            assert taken == name, f"the zoo gives {name!r}, which the option {first.name!r} reads as {taken!r}; name what it chooses from"
        tested = self.options.get(first.name)
        assert tested in names, f"the zoo does not give {tested!r}, the model that `options` of {type(self).__name__} names"

    def test_gives_one_row_of_logits_per_input(self) -> None:
        """Inputs [n, *input_shape] give [n, classes], for one input as for several, and for another number of classes."""
        model = self.build().eval()
        for n in (1, 3):
            shape = tuple(model(self.inputs(n)).shape)
            assert shape == (n, self.classes), f"{n} inputs give {shape}, expected {(n, self.classes)}; keep the batch dimension"
        wider = build_model(
            self.info.name, input_shape=self.input_shape, classes=self.classes + 1, options=dict(self.options), registry=self.registry
        )
        shape = tuple(wider.eval()(self.inputs(2)).shape)
        assert shape == (2, self.classes + 1), f"with classes={self.classes + 1} two inputs give {shape}; size the head by `classes`"

    def test_is_fresh(self) -> None:
        """The model is in training mode, in float32 on the CPU, and all of its parameters are trained."""
        model = self.build()
        resting = [name or "the model" for name, module in model.named_modules() if not module.training]
        assert not resting, f"{resting[0]} is in evaluation mode; build() gives a network to be trained"
        for name, parameter in model.named_parameters():
            found = f"{name} is {parameter.dtype} on {parameter.device}"
            assert parameter.dtype == torch.float32 and parameter.device.type == "cpu", f"{found}; the caller moves and casts it"
            assert parameter.requires_grad, f"{name} does not require a gradient; freezing is the user's business"

    def test_weights_depend_on_the_seed_alone(self) -> None:
        """Equal seeds give equal weights, other seeds others; nothing is remembered between calls."""
        first, second, other = (self.build(seed).state_dict() for seed in (0, 0, 1))
        differing = [name for name in first if not torch.equal(first[name], second[name])]
        assert not differing, f"{differing[0] if differing else ''} differs between two builds with one seed; use torch's global generator"
        assert any(not torch.equal(first[name], other[name]) for name in first), (
            "the weights do not depend on the seed; do not seed in build()"
        )

    def test_gradients_reach_every_parameter(self) -> None:
        """In training mode the loss has a finite gradient by every parameter."""
        model = self.build()
        loss = nn.functional.cross_entropy(model(self.inputs(8)), torch.arange(8) % self.classes)
        loss.backward()  # type: ignore[no-untyped-call]
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, f"no gradient reaches {name}; use it in forward(), or do not make it"
            assert parameter.grad.isfinite().all(), f"the gradient of {name} is not finite at initialisation"

    def test_evaluation_is_a_function(self) -> None:
        """In evaluation mode equal inputs give equal outputs, each whatever the rest of the batch, and nothing is changed."""
        model = self.build().eval()
        x, before = self.inputs(4), Snapshot.of(model)
        with torch.no_grad():
            first, second, alone = model(x), model(x), model(x[:1])
        assert torch.equal(first, second), "two evaluations of one batch differ; switch dropout and the like off where training is False"
        torch.testing.assert_close(first[:1], alone, atol=1e-4, rtol=1e-3, msg="an output depends on the other samples of its batch")
        assert not before.changes(model), f"evaluating the model changes {', '.join(before.changes(model))}"

    def test_refuses_inputs_that_do_not_fit(self) -> None:
        """For inputs of another number of dimensions the model is built, or refused in one line."""
        for shape in ((2, 40), (3, 32, 32), (1, 8, 8, 8), (5,)):
            if len(shape) == len(self.input_shape):
                continue
            try:
                build_model(self.info.name, input_shape=shape, classes=3, options=dict(self.options), registry=self.registry)
            except PluginError as error:
                raised = error.__cause__ or error
                msg = (
                    f"for inputs of shape {shape} it raised {type(raised).__name__}: {raised}; "
                    "raise anarch_core.errors.ConfigError that says which inputs the model takes"
                )
                raise AssertionError(msg) from raised
            except AnarchError as error:
                assert "\n" not in str(error), f"the refusal of inputs of shape {shape} should be one line: {error}"

    def test_has_something_to_relax(self) -> None:
        """At least one layer can be relaxed, and none is refused."""
        found = plan(self.build(), self.relaxation, example_input=self.inputs(1), registry=self.registry)
        reasons = [f"{path}: {reason}" for path, reason in found.refused.items()]
        assert not reasons, f"{self.relaxation} refuses {'; '.join(reasons)}"
        assert found.layers, f"{self.relaxation} finds no layer to relax; use nn.Conv1d, nn.Conv2d or nn.Conv3d for what is to be relaxed"

    def test_is_rebuilt_from_a_checkpoint(self, tmp_path: Path) -> None:
        """A saved network is built again from its name and options, with its weights."""
        model = self.build(seed=3)
        save(model, tmp_path / "model.safetensors", model_spec=self.spec)
        again = load(tmp_path / "model.safetensors", registry=self.registry)
        equal = torch.equal(again.eval()(self.inputs(2)), model.eval()(self.inputs(2)))
        assert equal, "a saved and loaded network computes something else; hold its state in parameters and buffers"

    def test_can_be_copied(self) -> None:
        """A deep copy computes the same and shares no memory."""
        model = self.build().eval()
        twin = copy.deepcopy(model)
        assert torch.equal(twin(self.inputs(2)), model(self.inputs(2))), "copy.deepcopy of the model computes something else"
        theirs = {parameter.data_ptr() for parameter in twin.parameters()}
        assert theirs.isdisjoint(parameter.data_ptr() for parameter in model.parameters()), "copy.deepcopy of the model shares memory"
