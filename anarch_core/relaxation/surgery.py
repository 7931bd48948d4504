"""Finding layers in any ``nn.Module``, and why one cannot be replaced: no naming or ordering convention is asked of the network."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence

import attrs
import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from anarch_core.errors import SurgeryError, close_matches, did_you_mean
from anarch_core.layers.base import whole_modules
from anarch_core.layers.constrained import ConstrainedLayer
from anarch_core.plugin.blame import answering
from anarch_core.relaxation.base import AbstractRelaxation, Site
from anarch_core.relaxation.constraint import AbstractConstraintRelaxation
from anarch_core.relaxation.lattice import CONVOLUTIONS, is_convolution
from anarch_core.relaxation.materialise import convolution_of
from anarch_core.relaxation.passes import begin_pass
from anarch_core.relaxation.report import listed
from anarch_core.relaxation.trace import Trace

MATERIALISE = "materialise it (materialise=True, --materialise of anarch relax): the plain convolution that it computes now is relaxed"


def candidates(model: nn.Module, targets: tuple[type[nn.Module], ...]) -> dict[str, list[str]]:
    """Modules of the given types: canonical path -> all paths the same module is registered under. Relaxed layers count as wholes.

    A layer of a constraint relaxation is of the type of its free module, too. Where convolutions are among the types, modules that are made
    like one (quantised, scripted, deformable) are found as well, so that they are refused and not passed over.
    """
    first: dict[int, str] = {}
    paths: dict[str, list[str]] = {}
    for path, module in whole_modules(model, remove_duplicate=False):
        if is_target(module, targets) or (_ConvNd in targets and _like_a_convolution(module)):
            canonical = first.setdefault(id(module), path)
            paths.setdefault(canonical, []).append(path)
    return paths


def is_target(module: nn.Module, targets: tuple[type[nn.Module], ...]) -> bool:
    """Whether a module, or the free one of a layer of a constraint relaxation, is of one of the types."""
    return isinstance(module, targets) or (isinstance(module, ConstrainedLayer) and isinstance(module.free, targets))


def select(paths: Mapping[str, Sequence[str]], patterns: str | Sequence[str]) -> list[str]:
    """Canonical paths that match the patterns, in the order of the network.

    Args:
        paths: result of :func:`candidates`.
        patterns: paths, or shell patterns over them; one that starts with ``!`` takes matches away again.

    Raises:
        SurgeryError: a pattern matches nothing, or there is none.
    """
    patterns = [patterns] if isinstance(patterns, str) else patterns
    if not patterns:
        msg = "no layer is chosen: the list of patterns is empty; '*' chooses all"
        raise SurgeryError(msg)
    chosen: dict[str, bool] = dict.fromkeys(paths, all(pattern.startswith("!") for pattern in patterns))
    for pattern in patterns:
        bare = pattern.removeprefix("!")
        matches = [path for path, names in paths.items() if any(name == bare or fnmatch.fnmatchcase(name, bare) for name in names)]
        if not matches and paths:
            close = close_matches(bare, (name for names in paths.values() for name in names))
            msg = f"layer pattern {pattern!r} matches none of {listed(list(paths), 20)}{did_you_mean(close)}"
            raise SurgeryError(msg)
        for path in matches:
            chosen[path] = not pattern.startswith("!")
    return [path for path, wanted in chosen.items() if wanted]


def owner(name: str, paths: Iterable[str]) -> str | None:
    """Which of the modules at ``paths`` a parameter belongs to; None for none of them."""
    return next((path for path in paths if not path or name.startswith(f"{path}.")), None)


def has_hooks(module: nn.Module) -> bool:
    """Whether calling or differentiating a module does more than its class says."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(hook is not begin_pass for kind in kinds for hook in getattr(module, kind).values())


def _like_a_convolution(module: nn.Module) -> bool:
    """Whether a module has the attributes of a convolution and no module inside."""
    return all(hasattr(module, name) for name in ("in_channels", "out_channels", "kernel_size")) and not any(module.children())


def traced_site(model: nn.Module, path: str, traces: Sequence[Trace], relaxation: AbstractRelaxation) -> Site:
    """A layer with what the traces told of it, whether or not it can be relaxed."""
    module = model.get_submodule(path)
    calls = [call for trace in traces for call in trace.calls[path]]
    inputs = {_place(module, call.input_shape) for call in calls if relaxation.sized or call.alone}
    return Site(
        path=path,
        module=module,
        input_shape=inputs.pop() or () if len(inputs) == 1 else (),
        output_shape=(_place(module, calls[0].output_shape) or ()) if calls else (),
        calls=max(len(trace.calls[path]) for trace in traces),
        arguments=calls[0].arguments if calls else None,
    )


def site_or_reason(
    site: Site,
    traces: Sequence[Trace],
    relaxation: AbstractRelaxation,
    *,
    aliases: Sequence[str] = (),
    ties: Sequence[tuple[str, str]] = (),
    materialise: bool = False,
) -> Site | str:
    """The layer as it is to be relaxed, or why it cannot be.

    Args:
        site: the layer with what the traces told of it.
        traces: passes of the example.
        relaxation: that is asked about the layer.
        aliases: all paths that it is registered under.
        ties: pairs of modules that share a parameter.
        materialise: stand the plain convolution that it computes at this moment in for a layer whose weight is computed.
    """
    module, path = site.module, site.path
    computed = None if answering(relaxation.understands, bool)(module) else _computed(module)
    reason = _entangled(module, aliases or [path], ties) or (None if materialise else computed)
    reason = reason or next((trace.odd[path] for trace in traces if path in trace.odd), None)
    reason = reason or _misused(site, traces, relaxation.sized)
    if reason is not None:
        return reason
    refused = answering(relaxation.refusal, str, type(None))
    refusal = computed or refused(site)
    if refusal is None and isinstance(relaxation, AbstractConstraintRelaxation):
        refusal = answering(relaxation.refusal_of_second, str, type(None))(site)
    if refusal is None or not isinstance(module, CONVOLUTIONS) or (is_convolution(module) and computed is None):
        return refusal or site
    if not materialise:
        return f"{refusal}; {MATERIALISE}"
    plain = convolution_of(module, site.input_shape)
    if isinstance(plain, str):
        return plain
    site = attrs.evolve(site, module=plain)
    return refused(site) or site


def _place(module: nn.Module, shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """A shape without its batch dimension."""
    if shape is None:
        return None
    kernel = getattr(module, "kernel_size", None)
    spatial = len(kernel) if isinstance(kernel, tuple) else len(shape) - 2
    return shape[-spatial - 1 :]


def _misused(site: Site, traces: Sequence[Trace], sized: bool) -> str | None:
    """Why a layer is not called as a relaxation needs it to be."""
    calls = [call for trace in traces for call in trace.calls[site.path]]
    why = next((f"; {trace.elsewhere}" for trace in traces if trace.elsewhere), "")
    if not calls:
        return f"it was not called when the example input was run, so its input size is not known{why}"
    if not sized:
        counts = sorted({len(trace.calls[site.path]) for trace in traces} - {0})
        times = " and ".join(map(str, counts))
        return None if len(counts) == 1 else f"it is called {times} times in a pass, in training and in evaluation mode"
    odd = next((call.odd for call in calls if call.odd), None)
    shapes = {_place(site.module, call.input_shape) or () for call in calls}
    if odd is None and len(shapes) > 1:
        sizes = " and ".join(str(list(shape)) for shape in sorted(shapes))
        return f"it is called with {len(shapes)} different input sizes ({sizes}), and a relaxed layer has one"
    return odd


def _computed(module: nn.Module) -> str | None:
    """Why the weight of a module is not one of its parameters, as far as PyTorch's own means show it."""
    remedy = f", or {MATERIALISE}" if isinstance(module, CONVOLUTIONS) else ""
    if parametrize.is_parametrized(module):
        return f"it is parametrized (torch.nn.utils.parametrize), and its weight is not a free parameter; remove that{remedy}"
    if has_hooks(module):
        return f"it has hooks (pruning, old-style weight norm, or your own), which a new layer would not run; remove them{remedy}"
    return None


def _entangled(module: nn.Module, paths: Sequence[str], ties: Sequence[tuple[str, str]]) -> str | None:
    """Why a module is more than its own parameters, or does not have them alone."""
    if isinstance(module, torch.jit.ScriptModule):
        return "it is compiled by torch.jit; relax the module it was made from"
    patched = [name for name, value in vars(module).items() if callable(value) and callable(getattr(type(module), name, None))]
    if patched:
        return f"its {patched[0]} was replaced by another function, which a new layer would not run; restore it first"
    for pair in ties:
        inside = [owner(f"{other}.", paths) is not None for other in pair]
        if any(inside) and not all(inside):
            return f"it shares a parameter with {pair[inside.index(False)] or 'the root module'}"
    return None


def check_replaceable(model: nn.Module) -> None:
    """Refuse networks that hold on to their modules, and those that the example input would change.

    Raises:
        SurgeryError: the network is wrapped for distribution, compiled or scripted, or a module in it is lazy.
    """
    if isinstance(model, torch.jit.ScriptModule) or hasattr(model, "_orig_mod"):
        msg = f"the network is a {type(model).__name__}, whose modules cannot be replaced; relax it before torch.compile or torch.jit"
        raise SurgeryError(msg)
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        msg = f"the network is wrapped in {type(model).__name__}; relax model.module and wrap it afterwards"
        raise SurgeryError(msg)
    for path, module in model.named_modules():
        if isinstance(module, nn.modules.lazy.LazyModuleMixin) and module.has_uninitialized_params():  # type: ignore[misc]
            msg = f"{path} cannot be relaxed: it is lazy, its shape is known only after a first call; run one batch through the network"
            raise SurgeryError(msg, paths=(path,))
