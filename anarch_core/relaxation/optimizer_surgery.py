"""Put the parameters of replaced layers into an optimizer that somebody else holds: the same object, with its groups and settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from anarch_core.errors import ConfigError
from anarch_core.relaxation.optimizer_state import added, rest

State = Mapping[str, object]
Heirs = Mapping[nn.Parameter, Sequence[tuple[str, nn.Parameter]]]
Moved = Callable[[str, str, State], Mapping[str, State] | None]
"""Path of a replaced layer, name of a parameter in it, its state -> state of the new layer's parameters; None where it has to be reset."""


@attrs.frozen(kw_only=True)
class Succession:
    """What an optimizer is to hold from now on. Nothing is changed before :meth:`enter`.

    Attributes:
        optimizer: of the user.
        groups: what each of its groups is to hold: parameters, with what the optimizer calls them if it has names.
        state: of every parameter whose state changes; empty for those that leave.
        fate: name of every parameter of the new network that the optimizer is to hold -> ``"carried"``, ``"reset"`` or ``"empty"``.
        lost: names of the old parameters whose state was to be carried and is not.
    """

    optimizer: torch.optim.Optimizer
    groups: Sequence[Sequence[tuple[nn.Parameter, str | None]]]
    state: Mapping[nn.Parameter, State]
    fate: Mapping[str, str]
    lost: Sequence[str]

    def enter(self) -> None:
        """Change the optimizer: its lists and dictionaries in place, so that whoever holds one of them sees it."""
        for group, entries in zip(self.optimizer.param_groups, self.groups, strict=True):
            group["params"][:] = [parameter for parameter, _ in entries]
            if "param_names" in group:
                group["param_names"][:] = [called for _, called in entries]
        for parameter, values in self.state.items():
            self.optimizer.state.pop(parameter, None)
            if values:
                self.optimizer.state[parameter] = dict(values)
        rest(self.optimizer)
        if isinstance(self.optimizer, torch.optim.LBFGS):
            self.optimizer._numel_cache = None  # it counts its weights once


def succession(optimizer: torch.optim.Optimizer, model: nn.Module, layers: Mapping[str, nn.Module], moved: Moved | None) -> Succession:
    """What an optimizer is to hold when some layers of a network are replaced.

    A new parameter goes where the old layer's parameter of that name was, or of the same last name (``"values.bias"`` and ``"bias"``); one
    without a namesake, where the first was that has none either. What was in no group stays in none, and what is not the network's stays.

    Args:
        optimizer: over parameters of ``model``, and perhaps others.
        model: with the old layers still in their places.
        layers: path -> what is to take its place.
        moved: how the state of a replaced parameter is carried, for that which has state; None resets all parameters of the network.

    Raises:
        ConfigError: the optimizer holds nothing of the network, or what it keeps cannot be told apart by parameters.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    heirs: dict[nn.Parameter, Sequence[tuple[str, nn.Parameter]]] = {}
    for path, layer in layers.items():
        heirs |= _heirs(path, model.get_submodule(path), layer)
    _require_ours(optimizer, names, heirs)
    if moved is not None and isinstance(optimizer, torch.optim.LBFGS) and optimizer.state:
        msg = "LBFGS keeps one history of all weights together, which cannot be carried over a switch; pass optimizer_state='reset'"
        raise ConfigError(msg)

    groups: list[list[tuple[nn.Parameter, str | None]]] = []
    state: dict[nn.Parameter, State] = {}
    fate: dict[str, str] = {}
    for group in optimizer.param_groups:
        entries: list[tuple[nn.Parameter, str | None]] = []
        for parameter, called in zip(group["params"], group.get("param_names", [None] * len(group["params"])), strict=True):
            if parameter not in names:
                entries.append((parameter, called))
                continue
            had = bool(optimizer.state.get(parameter))
            if parameter in heirs:
                state[parameter] = {}
            for name, heir in heirs.get(parameter, [(names[parameter], parameter)]):
                entries.append((heir, called and _renamed(called, names[parameter], name)))
                fate[name] = "empty" if not had else "carried" if heir is parameter and moved is not None else "reset"
                if fate[name] != "carried":
                    state[heir] = _initial(optimizer, group, heir)
        groups.append(entries)

    lost: list[str] = []
    for path, layer in layers.items() if moved is not None else ():
        new = dict(layer.named_parameters())
        for local, parameter in model.get_submodule(path).named_parameters():
            values = optimizer.state.get(parameter)
            if moved is None or not values or parameter not in state:
                continue
            carried = moved(path, local, values)
            if not carried:
                lost.append(names[parameter])
                continue
            for heir, tensors in carried.items():
                full = _full(path, heir)
                if full in fate:
                    state[new[heir]] = added(state[new[heir]], tensors) if fate[full] == "carried" else tensors
                    fate[full] = "carried"
    return Succession(optimizer=optimizer, groups=groups, state=state, fate=fate, lost=lost)


def innermost(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer that does the work where frameworks wrap it.

    Raises:
        ConfigError: the wrapper keeps state apart from that of the optimizer it wraps.
    """
    for inner in vars(optimizer).values():
        if isinstance(inner, torch.optim.Optimizer):
            if inner.state is not optimizer.state:
                msg = (
                    f"the {type(optimizer).__name__} wraps a {type(inner).__name__} and both keep state, which one call cannot change "
                    "together; use anarch_core.relax and build the optimizer anew"
                )
                raise ConfigError(msg)
            return innermost(inner)
    return optimizer


def _heirs(path: str, old: nn.Module, new: nn.Module) -> Heirs:
    """Every parameter of an old layer -> names (in the network) and parameters of the new layer that go where it was."""
    before, after = dict(old.named_parameters()), dict(new.named_parameters())
    heirs: dict[nn.Parameter, list[tuple[str, nn.Parameter]]] = {parameter: [] for parameter in before.values()}
    kinds = {_last(name): name for name in reversed(before)}
    first = next((name for name in before if name not in after), next(iter(before), None))
    for name, parameter in after.items():
        place = name if name in before else kinds.get(_last(name), first)
        if place is not None:
            heirs[before[place]].append((_full(path, name), parameter))
    return heirs


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _full(path: str, local: str) -> str:
    return f"{path}.{local}" if path else local


def _renamed(called: str, old: str, new: str) -> str:
    """What an optimizer calls a new parameter; its names may have a prefix, where the network is part of a larger one."""
    return called.removesuffix(old) + new if called.endswith(old) else called if old == new else new


def _initial(optimizer: torch.optim.Optimizer, group: Mapping[str, object], parameter: nn.Parameter) -> State:
    """State of a parameter that was never stepped: none, but for Adagrad, which makes it beforehand and does not work without."""
    if not isinstance(optimizer, torch.optim.Adagrad):
        return {}
    settings: dict[str, Any] = {key: value for key, value in group.items() if key != "param_names"} | {"params": [parameter]}
    start = settings["initial_accumulator_value"]
    state: State = torch.optim.Adagrad([settings], initial_accumulator_value=start, fused=settings["fused"]).state[parameter]
    return state


def _require_ours(optimizer: torch.optim.Optimizer, names: Mapping[nn.Parameter, str], leaving: Iterable[nn.Parameter]) -> None:
    lists = [group["params"] for group in optimizer.param_groups]
    held = {parameter for parameters in lists for parameter in parameters}
    if not held & names.keys():
        msg = (
            f"the {type(optimizer).__name__} holds no parameter of this network; expected the optimizer that was built from "
            "this network's parameters, not from those of a copy or of the network before anarch_core.relax"
        )
        raise ConfigError(msg)
    ours = {id(parameter) for parameter in leaving}
    for attribute, value in vars(optimizer).items():
        known = attribute in ("param_groups", "state") or any(value is parameters for parameters in lists)
        if not known and any(id(leaf) in ours for leaf in tree_leaves(value)):
            msg = (
                f"the {type(optimizer).__name__} also keeps parameters in its attribute {attribute!r}, where they would stay the old ones; "
                "use anarch_core.relax and build the optimizer anew"
            )
            raise ConfigError(msg)
