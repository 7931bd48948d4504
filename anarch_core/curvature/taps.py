"""What single layers contribute to a tangent kernel, from what they are given and from the slopes of outputs by what they give."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

LayerKernel = Callable[[torch.Tensor, torch.Tensor], Mapping[str, torch.Tensor]]
"""(what a layer is given, slopes of one output by what it gives; [n, ...]) -> kernel of its parameters by part, [n, n], float64."""


class Taps:
    """Layers of a network that are watched while it is called.

    Their parameters are taken for constants inside of their own calls, so no gradient by them is ever computed.
    """

    def __init__(self, model: nn.Module, layers: Mapping[str, LayerKernel]) -> None:
        self.model = model
        self.layers = layers
        self.given: dict[str, torch.Tensor] = {}
        self.made: dict[str, torch.Tensor] = {}
        self.calls: Counter[str] = Counter()
        self.strange: set[str] = set()

    def contributions(
        self, call: Callable[[torch.Tensor], torch.Tensor], inputs: torch.Tensor
    ) -> Iterator[dict[str, Mapping[str, torch.Tensor]]]:
        """For one output after the other, what every layer contributes, by its path and by part.

        Args:
            call: the network; all samples go through it at once.
            inputs: [n, ...].
        """
        with self.watching():
            outputs = call(inputs).flatten(1)
        paths = list(self.layers)
        for index, output in enumerate(outputs.unbind(1)):
            last = index == outputs.shape[1] - 1
            slopes = torch.autograd.grad(
                output.sum(), [self.made[path] for path in paths], retain_graph=not last, allow_unused=True, materialize_grads=True
            )
            yield {path: self.layers[path](self.given[path], slope) for path, slope in zip(paths, slopes, strict=True)}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look at the layers while the network is called inside."""
        with ExitStack() as stack:
            for path in self.layers:
                module = self.model.get_submodule(path)
                own = [parameter for parameter in module.parameters() if parameter.requires_grad]
                stack.callback(_require_gradients, own)  # a call that is broken off never comes to its end
                stack.enter_context(module.register_forward_pre_hook(self._before(path, own), with_kwargs=True))
                stack.enter_context(module.register_forward_hook(self._after(path, own), prepend=True))
            yield

    def whole(self, path: str, samples: int) -> bool:
        """Whether what was seen of a layer is all there is: one call, with a row in and out for each sample."""
        return path not in self.strange and self.calls[path] == 1 and len(self.given[path]) == len(self.made[path]) == samples

    def _before(self, path: str, own: list[nn.Parameter]) -> Callable[..., None]:
        def look(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.calls[path] += 1
            if len(args) == 1 and not kwargs and isinstance(args[0], torch.Tensor):
                self.given[path] = args[0].detach()
            else:
                self.strange.add(path)
            for parameter in own:
                parameter.requires_grad_(False)

        return look

    def _after(self, path: str, own: list[nn.Parameter]) -> Callable[..., torch.Tensor | None]:
        def look(module: nn.Module, args: tuple[Any, ...], output: Any) -> torch.Tensor | None:
            _require_gradients(own)
            if not isinstance(output, torch.Tensor):
                self.strange.add(path)
                return None
            self.made[path] = output if output.requires_grad else output.requires_grad_()
            return output.clone()  # what comes after may write into it

        return look


def _require_gradients(parameters: Sequence[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.requires_grad_()


def tappable(
    model: nn.Module, call: Callable[[torch.Tensor], torch.Tensor], inputs: torch.Tensor, layers: Mapping[str, LayerKernel]
) -> dict[str, LayerKernel]:
    """The layers whose contributions are all of what their parameters do.

    Each is called once, backward passes included, with one row for each sample in and out, and its parameters belong to no other module and
    are used nowhere else. That is seen on one sample and on two.

    Args:
        model: the network, in evaluation mode.
        call: calls it.
        inputs: [n, ...], at least two.
        layers: those to choose from, by path.
    """
    owners = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    fitting = {
        path: kernel
        for path, kernel in layers.items()
        if all(owners[id(parameter)] == 1 for parameter in model.get_submodule(path).parameters())
    }
    for samples in (1, 2):
        if not fitting:
            break
        names = {id(parameter): path for path in fitting for parameter in model.get_submodule(path).parameters() if parameter.requires_grad}
        parameters = [parameter for parameter in model.parameters() if id(parameter) in names]
        taps = Taps(model, fitting)
        with taps.watching():
            total = call(inputs[:samples]).sum()
            made = [tensor for tensor in taps.made.values() if tensor.requires_grad]
            elsewhere = torch.autograd.grad(total, [*parameters, *made], allow_unused=True)[: len(parameters)]
        used = {names[id(parameter)] for parameter, slope in zip(parameters, elsewhere, strict=True) if slope is not None}
        fitting = {path: kernel for path, kernel in fitting.items() if path not in used and taps.whole(path, samples)}
    return fitting
