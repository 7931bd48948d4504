"""The empirical neural tangent kernel of a network, in parts of its parameter space.

``K(x, x') = sum_c grad f_c(x) . grad f_c(x')`` over the outputs ``c``: the trace over outputs of the kernel of Jacot et al. 2018. With
``J`` the Jacobian of all outputs and ``P`` an orthogonal projection, a part of it is ``J P J'``; parts that make up the space add up.

Layers that say what they contribute, from what they are given and from the slopes of an output by what they give, take one backward pass
per output for all samples, and nothing as large as a parameter is made (as in Novak et al. 2022). The gradients of all others are rows
that autograd gives, one per sample and output, held as far as a budget allows and computed again beyond.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from anarch_core.curvature.differentiable import differentiable, require_visible
from anarch_core.curvature.gradient_rows import GradientRows, Split
from anarch_core.curvature.taps import LayerKernel, Taps, tappable
from anarch_core.errors import ProbeError
from anarch_core.network import undisturbed
from anarch_core.sharding.shared_out import shards_of

BUDGET = 2**26
"""Numbers of rows that are held at once, unless said otherwise."""


@attrs.frozen(kw_only=True)
class TangentKernel:
    """A kernel on some samples, in parts that add up to it.

    Attributes:
        parts: by name, [n, n], float64.
        layers: the trace of what each layer contributes, by its path and by part.
        outputs: how many there are for each sample.
        by_rows: the layers whose gradients were computed row by row.
    """

    parts: Mapping[str, torch.Tensor]
    layers: Mapping[str, Mapping[str, float]]
    outputs: int
    by_rows: Sequence[str]

    @property
    def whole(self) -> torch.Tensor:
        """The kernel, [n, n], float64."""
        return torch.stack(list(self.parts.values())).sum(0)


def tangent_kernel(
    model: nn.Module,
    inputs: torch.Tensor,
    *,
    network: Callable[[torch.Tensor], torch.Tensor] | None = None,
    layers: Mapping[str, LayerKernel] | None = None,
    split: Split | None = None,
    layer_of: Callable[[str], str] = lambda name: name.rpartition(".")[0],
    budget: int = BUDGET,
    sketch: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> TangentKernel:
    """The kernel of a network in evaluation mode, by all parameters that require a gradient.

    Args:
        model: left as it was.
        inputs: [n, ...], on its device.
        network: what calls the model and gives its outputs, [n, ...]; the model itself if None.
        layers: what the parameters of modules contribute, by path. It is used where a module is called once, with one row of inputs and of
            outputs for each sample, and its parameters are used nowhere else.
        split: makes orthogonal parts of a gradient by the parameters of a layer, by part and name; parts that are zero may be left out.
            There is one part, ``"whole"``, if None.
        layer_of: the layer that a parameter is told by, by its name; parameters of one layer are split together.
        budget: numbers of rows that are held at once; a layer with more has them computed again for every two blocks of samples.
        sketch: no more than what shows how much memory is taken, as on a network without numbers: the kernel is of no use.
        progress: called with the backward passes that are done, and how many there will be where no row is computed again.

    Raises:
        ProbeError: there is nothing to differentiate by, several processes hold the network together, parameters are of half precision,
            samples are mixed by batch norm without running statistics, or autograd does not see all parameters.
    """
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    _check(model, inputs, trained)
    call = model if network is None else network
    found = _Sum(len(inputs), inputs.device)
    with undisturbed(model), differentiable(model):
        outputs = call(inputs[:1]).flatten(1)
        if not outputs.requires_grad:
            msg = "autograd sees no way from the outputs to the parameters; let the network compute without torch.no_grad() and detach()"
            raise ProbeError(msg)
        require_visible(outputs)
        count = outputs.shape[1]
        del outputs
        known = tappable(model, call, inputs, layers or {})
        inside = {id(parameter) for path in known for parameter in model.get_submodule(path).parameters()}
        rest = {name: parameter for name, parameter in trained.items() if id(parameter) not in inside}
        first, total = count * bool(known), count * bool(known) + len(inputs) * count * bool(rest)
        if known:
            for done, contributions in enumerate(Taps(model, known).contributions(call, inputs), start=1):
                for path, parts in contributions.items():
                    found.add(path, parts)
                progress(done, total)
                if sketch:
                    break
        if rest:
            rows = GradientRows(
                call, inputs, count, rest, split=split, layer_of=layer_of, progress=lambda done: progress(first + done, total)
            )
            for path, parts in rows.kernels(budget, sketch=sketch):
                found.add(path, parts)
    return TangentKernel(parts=found.parts, layers=found.layers, outputs=count, by_rows=tuple(dict.fromkeys(map(layer_of, rest))))


class _Sum:
    """Kernels that are summed over layers and outputs."""

    def __init__(self, samples: int, device: torch.device) -> None:
        self.parts: dict[str, torch.Tensor] = {}
        self.layers: dict[str, dict[str, float]] = {}
        self._samples, self._device = samples, device

    def add(self, path: str, parts: Mapping[str, torch.Tensor]) -> None:
        for part, kernel in parts.items():
            if part not in self.parts:
                self.parts[part] = torch.zeros(self._samples, self._samples, dtype=torch.float64, device=self._device)
            self.parts[part].add_(kernel)
            layer = self.layers.setdefault(path, {})
            layer[part] = layer.get(part, 0.0) + float(kernel.trace())


def _check(model: nn.Module, inputs: torch.Tensor, trained: Mapping[str, nn.Parameter]) -> None:
    if not trained:
        msg = "the network has no parameters that require a gradient; set requires_grad before measuring its tangent kernel"
        raise ProbeError(msg)
    if (shards := shards_of(model)) is not None:
        msg = f"there is no tangent kernel of a network that {shards.size} processes hold together; measure it in one process"
        raise ProbeError(msg)
    if len(inputs) < 2:
        msg = f"a tangent kernel needs at least two samples, got {len(inputs)}"
        raise ProbeError(msg)
    strange = sorted({str(parameter.dtype) for parameter in trained.values()} - {"torch.float32", "torch.float64"})
    if strange:
        msg = f"a tangent kernel needs parameters of float32 or float64, got {', '.join(strange)}; convert the network with .float()"
        raise ProbeError(msg)
    mixing = [path for path, module in model.named_modules() if isinstance(module, _BatchNorm) and module.running_mean is None]
    if mixing:
        named = ", ".join(mixing[:5]) + (" ..." if len(mixing) > 5 else "")
        msg = f"{named}: batch norm without running statistics mixes the samples of a batch, so no output has a gradient of its own sample"
        raise ProbeError(msg)
