"""A switch in a training loop of one's own: network and optimizer are changed in place, so that whoever holds them need not know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from torch import nn

from anarch_core.config.values import OptimizerState
from anarch_core.config.values import optimizer_state as checked_optimizer_state
from anarch_core.display import Displayed, Overview
from anarch_core.errors import ConfigError, OptimizerStateWarning, SurgeryError, warn
from anarch_core.layers.base import relaxed_layers
from anarch_core.machine import require_memory
from anarch_core.network import unwrapped
from anarch_core.plugin.blame import answering
from anarch_core.plugin.records import TensorRole
from anarch_core.plugin.registry import Registry
from anarch_core.relaxation.optimizer_state import roles_of, transported
from anarch_core.relaxation.optimizer_surgery import Moved, State, Succession, innermost, succession
from anarch_core.relaxation.passes import keep_passes_told
from anarch_core.relaxation.report import RelaxationReport, Relaxed
from anarch_core.relaxation.surgery import has_hooks
from anarch_core.relaxation.verbs import project, relax


@attrs.frozen(kw_only=True, repr=False)
class Switched(Displayed):
    """A network and its optimizer after a switch.

    Attributes:
        model: the network that was given, with other layers.
        optimizer: the optimizer that was given, holding their parameters.
        report: what was replaced and how exact it is; None for the way back, which changes the function.
        optimizer_state: name of every parameter of the network that the optimizer holds -> ``"carried"``, ``"reset"`` (there was state,
            and it starts anew) or ``"empty"`` (there was none). Parameters that are missing were in none of its groups, and are in none.
            Names are those of the network inside, where it is compiled.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    report: RelaxationReport | None
    optimizer_state: Mapping[str, str]

    def overview(self) -> Overview:
        """What was replaced, and what became of the optimizer's state; shown by ``print`` and by notebooks."""
        what = Overview(title="projected back") if self.report is None else self.report.overview()
        counts = Counter(self.optimizer_state.values())
        fate = ", ".join(f"{count} {word}" for word, count in counts.items()) or "no parameters"
        return attrs.evolve(what, facts=[*what.facts, (type(self.optimizer).__name__, f"state of parameters: {fate}")])


def switch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    relaxation: str = "efcn",
    *,
    example_input: Any,
    layers: str | Sequence[str] = "*",
    options: Any = None,
    materialise: bool = False,
    optimizer_state: OptimizerState = "reset",
    lr: float | None = None,
    roles: Mapping[str, TensorRole] | None = None,
    registry: Registry | None = None,
) -> Switched:
    """Relax a network in place, in the midst of training, and give the new weights to its optimizer.

    Both objects stay the same: modules keep their identity (each relaxed layer becomes a module of another class), unrelaxed parameters
    stay what they are, and the optimizer keeps its groups, their order and settings. Schedules, gradient scalers, callbacks and trainers
    go on with what they hold. If anything is raised, nothing was changed. A copy made before (``copy.deepcopy(model)``) is the parent.

    Call it between a step and the next backward pass: gradients of the layers that are replaced are dropped with them. What was made from
    the parameters before (lists of them, averages, CUDA graphs) has to be made again.

    Args:
        model: any network, compiled or not.
        optimizer: over its parameters; it may hold others too, which are left alone.
        relaxation: name of a registered relaxation.
        example_input: see :func:`anarch_core.relax`, as are ``layers``, ``options``, ``materialise`` and ``registry``.
        layers: shell patterns over module paths.
        options: of the relaxation.
        materialise: accept convolutions whose weight is computed; the state of what it was computed from starts anew.
        optimizer_state: ``"reset"``, as if the optimizer were new for the whole network, or ``"carry"``: unrelaxed parameters keep their
            state, and that of relaxed ones goes along the embedding, see :func:`anarch_core.relaxation.carry_optimizer_state`.
        lr: learning rate of all groups from now on; by default they keep their own.
        roles: what the tensors of the optimizer's state move like; by default known for PyTorch's optimizers.
        registry: where names are looked up.

    Raises:
        SurgeryError: a chosen layer cannot be relaxed exactly, or not in place.
        ConfigError: the optimizer does not hold the network's parameters, its state cannot be carried, or ``lr`` is set by a schedule.
        OutOfMemoryError: the relaxed layers, or their state, would not fit.

    Warns:
        OptimizerStateWarning: ``"carry"`` was asked for, and some state starts anew.
        InexactRelaxationWarning: see :func:`anarch_core.relax`; where it is made an error, nothing is changed.
    """
    network, inner = _network(model), _checked(optimizer, optimizer_state, lr)
    with _as_written(network):
        relaxed = relax(
            network,
            relaxation,
            example_input=example_input,
            layers=layers,
            options=options,
            materialise=materialise,
            registry=registry,
        )
    known = roles_of(inner) if roles is None else roles

    def moved(path: str, name: str, state: State) -> Mapping[str, State] | None:
        return transported(relaxed, path, name, state, known)

    new = {path: relaxed.model.get_submodule(path) for path in relaxed.sites}
    if optimizer_state == "carry":
        _require_memory_for_state(relaxed, new, inner, known)
    understood = {path for path in new if answering(relaxed.relaxation.understands, bool)(network.get_submodule(path))}
    heirs = succession(inner, network, new, moved if optimizer_state == "carry" else None)
    fate = _put(network, relaxed.model, new, heirs, lr, understood)
    return Switched(model=model, optimizer=optimizer, report=relaxed.report, optimizer_state=fate)


def switch_back(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    layers: str | Sequence[str] = "*",
    optimizer_state: OptimizerState = "reset",
    lr: float | None = None,
) -> Switched:
    """Project a network in place to the nearest constrained one, as :func:`switch` relaxes it.

    Args:
        model: a network with relaxed layers, compiled or not.
        optimizer: over its parameters.
        layers: shell patterns over module paths, as for :func:`anarch_core.project`.
        optimizer_state: as for :func:`switch`; under ``"carry"`` the projected layers start anew and the others keep their state.
        lr: as for :func:`switch`.

    Raises:
        SurgeryError: there is no relaxed layer, a pattern matches none, or one cannot be replaced in place.
        ConfigError: as for :func:`switch`.

    Warns:
        OptimizerStateWarning: ``"carry"`` was asked for, and there was state of projected layers.
    """
    network, inner = _network(model), _checked(optimizer, optimizer_state, lr)
    projected = project(network, layers=layers)
    kept = relaxed_layers(projected)
    new = {path: projected.get_submodule(path) for path in relaxed_layers(network) if path not in kept}
    moved: Moved | None = (lambda path, name, state: None) if optimizer_state == "carry" else None
    fate = _put(network, projected, new, succession(inner, network, new, moved), lr)
    return Switched(model=model, optimizer=optimizer, report=None, optimizer_state=fate)


def _network(model: nn.Module) -> nn.Module:
    """The network inside, once it is certain that nobody registered its parameters to train them together with other processes."""
    processes = torch.distributed.get_world_size() if torch.distributed.is_available() and torch.distributed.is_initialized() else 1
    if processes > 1 or isinstance(model, nn.parallel.DistributedDataParallel):
        msg = (
            f"{processes} process(es) train together, and a wrapper made before the switch would not synchronise the new weights; "
            "use anarch_core.relax on the network inside, wrap it again and build the optimizer anew"
        )
        raise SurgeryError(msg)
    return unwrapped(model)


def _checked(optimizer: torch.optim.Optimizer, optimizer_state: str, lr: float | None) -> torch.optim.Optimizer:
    """The optimizer that does the work, once it is certain that what is asked of it makes sense."""
    checked_optimizer_state(optimizer_state)
    if lr is not None and not 0 < lr < float("inf"):
        msg = f"lr must be a number above 0, got {lr!r}"
        raise ConfigError(msg)
    if lr is not None and any("initial_lr" in group for group in optimizer.param_groups):
        msg = (
            f"lr={lr:g} was given, but a schedule sets the learning rates of this optimizer and would overwrite it; set it in the schedule"
        )
        raise ConfigError(msg)
    return innermost(optimizer)


@contextmanager
def _as_written(network: nn.Module) -> Iterator[None]:
    """Run a network as it was written, without the mixed precision that accelerate enters in a ``forward`` of the object."""
    own = vars(network)
    patched = own.pop("forward") if "_original_forward" in own and "forward" in own else None
    try:
        yield
    finally:
        if patched is not None:
            own["forward"] = patched


def _require_memory_for_state(
    relaxed: Relaxed, new: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, roles: Mapping[str, TensorRole]
) -> None:
    needed = 0
    for path, layer in new.items():
        kept = [optimizer.state.get(parameter, {}).keys() & roles.keys() for parameter in relaxed.sites[path].module.parameters()]
        needed += max(map(len, kept), default=0) * sum(parameter.nbytes for parameter in layer.parameters())
    if needed:
        device = next(next(iter(new.values())).parameters()).device
        require_memory(needed, device, f"the optimizer's state of {len(new)} relaxed layer(s)")


def _put(
    model: nn.Module,
    source: nn.Module,
    new: Mapping[str, nn.Module],
    heirs: Succession,
    lr: float | None,
    understood: Collection[str] = (),
) -> Mapping[str, str]:
    """Make the layers of ``model`` what they are in ``source``, let the optimizer know, and say what became of its state.

    The hooks of layers that are ``understood`` are part of what their relaxation made.
    """
    if heirs.lost:
        names = ", ".join(heirs.lost[:3]) + (f" and {len(heirs.lost) - 3} more" if len(heirs.lost) > 3 else "")
        msg = f"the state that {type(heirs.optimizer).__name__} keeps of {names} cannot be carried over this switch and starts anew"
        warn(msg, OptimizerStateWarning)
    applied = source.anarch_relaxations
    _become({path: (model.get_submodule(path), layer) for path, layer in new.items()}, understood)
    model.anarch_relaxations = applied
    keep_passes_told(model)
    heirs.enter()
    if lr is not None:
        for group in heirs.optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr
    return heirs.fate


def _become(pairs: Mapping[str, tuple[nn.Module, nn.Module]], understood: Collection[str]) -> None:
    """Make each old module the new one without changing its identity, so that every reference to it is to the new one; all or none.

    Raises:
        SurgeryError: a module or a parameter has hooks, or the class of a module does not allow it.
    """
    for path, (old, _) in pairs.items():
        reason = _hooked(old, path in understood)
        if reason is not None:
            msg = f"{path or 'the network'} cannot be replaced in place: {reason}; remove them first, and register them again afterwards"
            raise SurgeryError(msg, paths=(path,))
    done: list[tuple[nn.Module, type, dict[str, Any]]] = []
    for path, (old, new) in pairs.items():
        was = (old, type(old), old.__dict__)
        try:
            object.__setattr__(old, "__class__", type(new))
        except TypeError as error:
            for module, kind, content in done:
                object.__setattr__(module, "__class__", kind)
                object.__setattr__(module, "__dict__", content)
            msg = f"{path or 'the network'} cannot be replaced in place: {error}; use anarch_core.relax, which makes a new network"
            raise SurgeryError(msg, paths=(path,)) from error
        object.__setattr__(old, "__dict__", new.__dict__)
        done.append(was)


def _hooked(module: nn.Module, understood: bool) -> str | None:
    """What would be lost with a module, besides its parameters."""
    if has_hooks(module) and not understood:
        return "it has hooks, which the new layer would not run"
    for name, parameter in module.named_parameters():
        if parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None):
            return f"its {name} has hooks, which the new parameters would not have"
    return None
