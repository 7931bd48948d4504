"""Networks of one shape as one whose weights are stacked, written by hand with as few calls and copies as there can be.

Batch last in memory, as in chains. The siblings' padded inputs lie one behind the other, each as long as a multiple of the stride, so that
what the positions of all of them read is one evenly spaced stack of views and a layer's product is one call. The few positions between two
siblings mean nothing: their output gradients are zero.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from small import trained_pieces
from torch import nn

from anarch_core.lattice.families import CONV
from anarch_core.ops.by_position import ByPosition, reading
from anarch_core.ops.piece import Piece

aten = torch.ops.aten


class Stacked:
    """Siblings with ReLU between their layers, trained by plain descent on the cross-entropy.

    Args:
        models: of one shape.
        batch: samples of each in a step.
    """

    def __init__(self, models: Sequence[nn.Module], batch: int) -> None:
        names = [name for name, _ in models[0].named_parameters()]
        self._names = list(zip(names[::2], names[1::2], strict=True))
        self._layers: list[_Positions | _Dense] = []
        for pieces in zip(*map(trained_pieces, models), strict=True):
            if isinstance(pieces[0], ByPosition):
                self._layers.append(_Positions(pieces, batch))
            else:
                self._layers.append(_Dense(pieces, batch, self._layers[-1].y.shape[1:-1] if self._layers else None))

    def step(self, x: torch.Tensor, targets: torch.Tensor, rate: float) -> None:
        """Of inputs [siblings, batch, 1, length] and labels [siblings, batch]."""
        layers = self._layers
        pixels_last = x.squeeze(2).transpose(1, 2)
        layers[0].x.copy_(pixels_last.view(pixels_last.shape[:2] + (1,) * (layers[0].x.ndim - 3) + pixels_last.shape[2:]))
        for layer, after in itertools.pairwise(layers):
            layer.forward()
            torch.clamp_min(layer.y, 0, out=after.x)
        last = layers[-1]
        last.forward()
        torch.softmax(last.y, 1, out=last.grad)
        last.grad.scatter_add_(1, targets.unsqueeze(1), last.grad.new_full((), -1.0).expand(len(targets), 1, targets.shape[1]))
        alpha = -rate / targets.shape[1]
        for layer, before in itertools.pairwise(reversed(layers)):
            gx = layer.backward()
            layer.descend(alpha)
            aten.threshold_backward.grad_input(gx, layer.x, 0, grad_input=before.grad)
        layers[0].descend(alpha)

    def weights(self) -> dict[str, torch.Tensor]:
        """As the layers have them, stacked, by name."""
        found = {}
        for (weight, bias), layer in zip(self._names, self._layers, strict=True):
            found[weight], found[bias] = layer.weights()
        return found


class _Dense:
    """[siblings, inputs, batch] to [siblings, outputs, batch].

    Args:
        pieces: of the siblings.
        batch: samples of each.
        before: (positions, channels) where positions come before channels in what it is given; the weights are put in that order once.
    """

    def __init__(self, pieces: Sequence[Piece], batch: int, before: Sequence[int] | None) -> None:
        weight, bias = (torch.stack([piece.parameters[which].detach() for piece in pieces]) for which in (0, 1))
        siblings, outputs, inputs = weight.shape
        self._before = tuple(before) if before and len(before) == 2 else None
        if self._before:
            weight = weight.view(siblings, outputs, *self._before[::-1]).transpose(2, 3).reshape(weight.shape)
        self._weight, self._bias = weight, bias.unsqueeze(2)
        self._inputs = weight.new_empty(siblings, inputs, batch)
        self.x = self._inputs.view(siblings, *(self._before or (inputs,)), batch)
        self.y, self.grad = weight.new_empty(2, siblings, outputs, batch)
        self._gx = torch.empty_like(self._inputs)

    def forward(self) -> None:
        torch.baddbmm(self._bias, self._weight, self._inputs, out=self.y)

    def backward(self) -> torch.Tensor:
        return torch.bmm(self._weight.transpose(1, 2), self.grad, out=self._gx).view(self.x.shape)

    def descend(self, alpha: float) -> None:
        self._weight.baddbmm_(self.grad, self._inputs.transpose(1, 2), alpha=alpha)
        self._bias.add_(self.grad.sum(2, keepdim=True), alpha=alpha)

    def weights(self) -> tuple[torch.Tensor, torch.Tensor]:
        weight = self._weight
        if self._before:
            weight = weight.view(*weight.shape[:2], *self._before).transpose(2, 3).reshape(weight.shape)
        return weight, self._bias.squeeze(2)


class _Positions:
    """[siblings, pixels, inputs, batch] to [siblings, positions, outputs, batch], weights shared by all positions or by none."""

    def __init__(self, pieces: Sequence[Piece], batch: int) -> None:
        self._pieces = [piece for piece in pieces if isinstance(piece, ByPosition)]
        geometry, self._shared = self._pieces[0].geometry, self._pieces[0].family == CONV
        self._found = reading(self._pieces[0].family, geometry)
        (axis,) = geometry.axes
        siblings, inputs, outputs = len(pieces), geometry.in_channels, geometry.out_channels
        like = pieces[0].parameters[0].detach()
        self._places = places = -(-(axis.before + axis.size + axis.after) // axis.stride)  # positions of a sibling and those up to the next
        read = axis.kernel * inputs
        pixels = like.new_zeros(siblings * places * axis.stride + axis.kernel, inputs, batch)
        own = pixels[: siblings * places * axis.stride].view(siblings, -1, inputs, batch)
        self.x = own[:, axis.before : axis.before + axis.size]
        self._read = pixels.as_strided((siblings * places, read, batch), (axis.stride * inputs * batch, batch, 1))
        self._y, self._grad = like.new_zeros(2, siblings * places, outputs, batch)
        self.y, self.grad = (each.view(siblings, places, outputs, batch)[:, : axis.positions] for each in (self._y, self._grad))

        self._back = like.new_empty(self._read.shape)
        gradient = like.new_zeros(own.shape)
        self._gx = gradient[:, axis.before : axis.before + axis.size]
        by_tap = self._back.view(siblings, places, axis.kernel, inputs, batch).unbind(2)
        self._first = [(gradient[:, tap :: axis.stride], by_tap[tap]) for tap in range(axis.stride)]
        self._others = [
            (gradient[:, tap :: axis.stride][:, : axis.positions], by_tap[tap][:, : axis.positions])
            for tap in range(axis.stride, axis.kernel)
        ]

        self._weight = like.new_zeros(siblings, 1 if self._shared else places, read, outputs)
        self._bias = like.new_zeros(siblings, 1 if self._shared else places, outputs)
        for sibling, piece in enumerate(self._pieces):
            weight, bias = (parameter.detach() for parameter in piece.parameters)
            rows = self._rows(piece, weight)
            label = torch.arange(self._found.labels).unsqueeze(0) if self._shared else self._found.label
            self._weight[sibling, : len(label)] = rows[label].transpose(2, 3).reshape(len(label), read, outputs)
            self._bias[sibling, : len(label)] = piece.bias_view(bias).view(-1, outputs)
        if self._shared:
            self._spread, self._spread_bias = like.new_empty(siblings, places, read, outputs), like.new_empty(siblings, places, outputs)
            self._gradient = torch.empty_like(self._spread)
        else:
            self._spread, self._spread_bias = self._weight, self._bias
        self._matrices = self._spread.flatten(0, 1)

    def _rows(self, piece: ByPosition, weight: torch.Tensor) -> torch.Tensor:
        """[labels, outputs, inputs], a view."""
        return piece.weight_view(weight).view(self._found.labels, piece.geometry.out_channels, -1)

    def forward(self) -> None:
        if self._shared:
            self._spread.copy_(self._weight)
            self._spread_bias.copy_(self._bias)
        bias = self._spread_bias.flatten(0, 1).unsqueeze(2)
        torch.baddbmm(bias, self._matrices.transpose(1, 2), self._read, out=self._y)

    def backward(self) -> torch.Tensor:
        torch.bmm(self._matrices, self._grad, out=self._back)
        for into, part in self._first:
            into.copy_(part)
        for into, part in self._others:
            into.add_(part)
        return self._gx

    def descend(self, alpha: float) -> None:
        grad = self._grad.transpose(1, 2)
        if self._shared:
            torch.bmm(self._read, grad, out=self._gradient.flatten(0, 1))
            self._weight.add_(self._gradient.sum(1, keepdim=True), alpha=alpha)
            self._bias.add_(self.grad.sum((1, 3)).unsqueeze(1), alpha=alpha)
        else:
            self._matrices.baddbmm_(self._read, grad, alpha=alpha)
            self._bias.add_(self._grad.sum(2).view(self._bias.shape), alpha=alpha)

    def weights(self) -> tuple[torch.Tensor, torch.Tensor]:
        weights, biases = [], []
        positions, outputs = (1 if self._shared else self._pieces[0].geometry.positions), self._pieces[0].geometry.out_channels
        labels, taps = (torch.arange(self._found.labels),) * 2 if self._shared else self._found.joined
        for sibling, piece in enumerate(self._pieces):
            weight, bias = (torch.empty_like(parameter, requires_grad=False) for parameter in piece.parameters)
            by_tap = self._weight[sibling, :positions].reshape(-1, piece.geometry.in_channels, outputs)
            self._rows(piece, weight)[labels] = by_tap[taps].transpose(1, 2)
            view = piece.bias_view(bias)
            view.copy_(self._bias[sibling, :positions].view(view.shape))
            weights.append(weight)
            biases.append(bias)
        return torch.stack(weights), torch.stack(biases)
