"""Optimizer state over the switch: carried along the embedding, or reset; never dropped in silence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch

from anarch_core.layers.base import RelaxedLayer
from anarch_core.plugin.records import TensorRole
from anarch_core.relaxation.report import Relaxed

# What PyTorch's optimizers keep per parameter. SGD's momentum buffer sums gradients, so it transforms as a gradient does.
PYTORCH_ROLES: Mapping[str, TensorRole] = {
    "momentum_buffer": "gradient",
    "exp_avg": "gradient",
    "exp_avg_sq": "square",
    "max_exp_avg_sq": "square",
}


def carry_optimizer_state(
    relaxed: Relaxed, source: torch.optim.Optimizer, target: torch.optim.Optimizer, *, roles: Mapping[str, TensorRole] = PYTORCH_ROLES
) -> dict[str, str]:
    """Fill the state of an optimizer of the relaxed network from that of its parent.

    A gradient g of a shared weight is the sum of the gradients of its n copies. State that sums gradients is divided among them, Φ(ΦᵀΦ)⁺
    g, so that Φᵀ gives it back; squares are treated as for incoherent positions, and weights that were held at zero get their layer's
    mean.

    Args:
        relaxed: result of :func:`anarch_core.relax`.
        source: optimizer over ``relaxed.parent``'s parameters.
        target: optimizer over ``relaxed.model``'s parameters, of the same kind; its state is replaced.
        roles: by key of the state, what a tensor shaped as its parameter moves like, as in
            :attr:`anarch_core.plugin.OptimizerInfo.roles`; by default what PyTorch's optimizers call momentum and moments.

    Returns:
        name of every parameter of the relaxed network that the target holds -> ``"carried"``, ``"reset"`` (a tensor has no role, or the
        relaxation does not know how), or ``"empty"`` (there was no state).
    """
    old = dict(relaxed.parent.named_parameters())
    new = dict(relaxed.model.named_parameters())
    held = {id(parameter) for group in target.param_groups for parameter in group["params"]}
    fate = {name: "reset" for name, parameter in new.items() if id(parameter) in held}
    for name, parameter in old.items():
        state = source.state.get(parameter, {})
        path, _, local = name.rpartition(".")
        if path in relaxed.sites:
            moved = _transported(relaxed, path, local, state, roles)
        else:
            moved = {local: {key: _copied(value) for key, value in state.items()}}
        for heir, values in (moved or {}).items():
            full = f"{path}.{heir}" if path else heir
            if full in fate:
                target.state[new[full]].clear()
                target.state[new[full]].update(values)
                fate[full] = "carried" if values else "empty"
    return fate


def _transported(
    relaxed: Relaxed, path: str, name: str, state: Mapping[str, object], roles: Mapping[str, TensorRole]
) -> dict[str, dict[str, object]] | None:
    layer = cast(RelaxedLayer, relaxed.model.get_submodule(path))
    shape = dict(relaxed.sites[path].module.named_parameters())[name].shape
    result: dict[str, dict[str, object]] = {}
    counters: dict[str, object] = {}
    for key, value in state.items():
        if not isinstance(value, torch.Tensor) or (value.numel() == 1 and value.shape != shape):
            counters[key] = value
            continue
        known = key in roles and value.shape == shape
        carried = relaxed.relaxation.transport(relaxed.sites[path], layer, name, value, roles[key]) if known else None
        if carried is None:
            return None
        for heir, tensor in carried.items():
            result.setdefault(heir, {})[key] = tensor
    heirs = result or {heir: {} for heir, _ in layer.named_parameters() if heir == name}
    return {heir: {**tensors, **{key: _copied(value) for key, value in counters.items()}} for heir, tensors in heirs.items()}


def _copied(value: object) -> object:
    return value.clone() if isinstance(value, torch.Tensor) else value
