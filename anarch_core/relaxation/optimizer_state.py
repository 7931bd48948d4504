"""Optimizer state over the switch: carried along the embedding, or reset; never dropped in silence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch

from anarch_core.layers.base import RelaxedLayer
from anarch_core.plugin.blame import answering
from anarch_core.plugin.records import TensorRole
from anarch_core.relaxation.report import Relaxed
from anarch_core.relaxation.surgery import owner

_MOMENTS: Mapping[str, TensorRole] = {"exp_avg": "gradient", "exp_avg_sq": "square", "max_exp_avg_sq": "square"}

# What is kept under these names by optimizers that are not listed below, as far as is known.
_COMMON_ROLES: Mapping[str, TensorRole] = {"momentum_buffer": "gradient", **_MOMENTS}

# What PyTorch's optimizers keep per parameter. SGD's momentum buffer sums gradients, so it transforms as a gradient does; RMSprop's sums
# steps, which move the weights, and ASGD averages weights. What is missing has no role: Adamax's largest gradient, Adadelta's squared
# steps, Rprop's step sizes, Adafactor's rows and columns.
_PYTORCH_ROLES: Sequence[tuple[type[torch.optim.Optimizer], Mapping[str, TensorRole]]] = (
    (torch.optim.Adagrad, {"sum": "square"}),
    (torch.optim.ASGD, {"ax": "weight"}),
    (torch.optim.RMSprop, {"square_avg": "square", "grad_avg": "gradient", "momentum_buffer": "weight"}),
    (torch.optim.Rprop, {}),
)


def roles_of(optimizer: torch.optim.Optimizer) -> Mapping[str, TensorRole]:
    """What the tensors of an optimizer's state move like, by key, as far as its class tells."""
    return next((roles for kind, roles in _PYTORCH_ROLES if isinstance(optimizer, kind)), _COMMON_ROLES)


def carry_optimizer_state(
    relaxed: Relaxed, source: torch.optim.Optimizer, target: torch.optim.Optimizer, *, roles: Mapping[str, TensorRole] | None = None
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
            :attr:`anarch_core.plugin.OptimizerInfo.roles`; by default what the class of PyTorch's that the source is of keeps.

    Returns:
        name of every parameter of the relaxed network that the target holds -> ``"carried"``, ``"reset"`` (a tensor has no role, or the
        relaxation does not know how), or ``"empty"`` (there was no state).
    """
    roles = roles_of(source) if roles is None else roles
    old = dict(relaxed.parent.named_parameters())
    new = dict(relaxed.model.named_parameters())
    held = {id(parameter) for group in target.param_groups for parameter in group["params"]}
    fate = {name: "reset" for name, parameter in new.items() if id(parameter) in held}
    for name, parameter in old.items():
        state = source.state.get(parameter, {})
        path = owner(name, relaxed.sites)
        moved: Mapping[str, Mapping[str, object]] | None
        if path is None:
            moved = {name: {key: _copied(value) for key, value in state.items()}}
        else:
            moved = transported(relaxed, path, name.removeprefix(f"{path}."), state, roles)
        for heir, values in (moved or {}).items():
            full = f"{path}.{heir}" if path else heir
            if full in fate:
                state = target.state[new[full]]
                both = added(state, values) if fate[full] == "carried" else values
                state.clear()
                state.update(both)
                fate[full] = "carried" if both else "empty"
    rest(target)
    return fate


def rest(optimizer: torch.optim.Optimizer) -> None:
    """Give the parameters without momentum a momentum of zero where PyTorch's fused SGD would not step some with and some without.

    The step from zero is the first step but for dampening, which spares the first.
    """
    for group in optimizer.param_groups if isinstance(optimizer, torch.optim.SGD) else ():
        moving = [parameter for parameter in group["params"] if parameter.requires_grad]
        fresh = [parameter for parameter in moving if optimizer.state.get(parameter, {}).get("momentum_buffer") is None]
        if group["fused"] and group["momentum"] and len(fresh) < len(moving):
            for parameter in fresh:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter, requires_grad=False)


def transported(
    relaxed: Relaxed, path: str, name: str, state: Mapping[str, object], roles: Mapping[str, TensorRole]
) -> dict[str, dict[str, object]] | None:
    """Carry the state of one parameter of a layer that was relaxed.

    Args:
        relaxed: result of :func:`anarch_core.relax`.
        path: of the layer.
        name: of the parent's parameter, within the layer.
        state: of that parameter; not changed, nor shared with what is returned.
        roles: see :func:`carry_optimizer_state`.

    Returns:
        state by the names of the relaxed layer's parameters; None where it has to be reset.
    """
    layer = cast(RelaxedLayer, relaxed.model.get_submodule(path))
    if path in relaxed.materialised and name != "bias":
        return None  # state of what the weight was computed from
    shape = relaxed.sites[path].module.get_parameter(name).shape
    result: dict[str, dict[str, object]] = {}
    counters: dict[str, object] = {}
    for key, value in state.items():
        if not isinstance(value, torch.Tensor) or key == "step" or (value.numel() == 1 and value.shape != shape):
            counters[key] = value
            continue
        known = key in roles and value.shape == shape
        transport = answering(relaxed.relaxation.transport, dict, type(None))
        carried = transport(relaxed.sites[path], layer, name, value, roles[key]) if known else None
        if carried is None:
            return None
        for heir, tensor in carried.items():
            same = isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() == value.untyped_storage().data_ptr()
            result.setdefault(heir, {})[key] = tensor.clone() if same else tensor
    heirs = result or {heir: {} for heir, _ in layer.named_parameters() if heir == name}
    return {heir: {**tensors, **{key: _copied(value) for key, value in counters.items()}} for heir, tensors in heirs.items()}


def added(one: Mapping[str, object], other: Mapping[str, object]) -> dict[str, object]:
    """State of a parameter that several of the parent's became, from that which two of them give; counters are the latter's."""
    return {**one, **{key: _sum(one[key], value) if key in one and key != "step" else value for key, value in other.items()}}


def _sum(one: object, other: object) -> object:
    return one + other if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor) and other.ndim else other


def _copied(value: object) -> object:
    return value.clone() if isinstance(value, torch.Tensor) else value
