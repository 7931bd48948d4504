"""The network ``pruned-mlp``."""

from __future__ import annotations

import math
from collections import OrderedDict
from itertools import pairwise

from torch import nn
from torch.nn.utils import prune

from anarch_plugins.models.pruned_mlp.options import PrunedMlpOptions


def build(input_shape: tuple[int, ...], classes: int, options: PrunedMlpOptions) -> nn.Sequential:
    """Linear layers with ReLU, pruned in place; the output layer at half the rate, as Frankle & Carbin do.

    Args:
        input_shape: any; inputs are flattened.
        classes: number of outputs.
        options: widths and pruning.
    """
    widths = (math.prod(input_shape), *options.hidden, classes)
    layers = OrderedDict[str, nn.Module](flatten=nn.Flatten())
    for place, (inputs, outputs) in enumerate(pairwise(widths), 1):
        last = place == len(widths) - 1
        layers[f"linear{place}"] = _pruned(nn.Linear(inputs, outputs), options.pruned / 2 if last else options.pruned, options.mask)
        if not last:
            layers[f"relu{place}"] = nn.ReLU()
    return nn.Sequential(layers)


def _pruned(layer: nn.Linear, amount: float, mask: str) -> nn.Linear:
    method = prune.l1_unstructured if mask == "magnitude" else prune.random_unstructured
    method(layer, "weight", amount)  # type: ignore[no-untyped-call]
    return layer
