"""Finding, tracing and replacing layers in any ``nn.Module``: no naming or ordering convention is asked of the network."""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.utils._pytree import tree_leaves

from anarch_core.errors import SurgeryError, close_matches, did_you_mean
from anarch_core.layers.base import whole_modules
from anarch_core.network import undisturbed
from anarch_core.relaxation.base import AbstractRelaxation, Site


@attrs.frozen(kw_only=True)
class Call:
    """One call of a layer while the example input ran through the network."""

    input: torch.Tensor
    output: torch.Tensor


@attrs.frozen(kw_only=True)
class Trace:
    """What one pass of the example input showed.

    Attributes:
        calls: calls of each candidate, by canonical path.
        outputs: tensors that the network returned.
    """

    calls: Mapping[str, Sequence[Call]]
    outputs: Sequence[torch.Tensor]


def candidates(model: nn.Module, targets: tuple[type[nn.Module], ...]) -> dict[str, list[str]]:
    """Modules of the given types: canonical path -> all paths the same module is registered under. Relaxed layers count as wholes."""
    first: dict[int, str] = {}
    paths: dict[str, list[str]] = {}
    for path, module in whole_modules(model, remove_duplicate=False):
        if isinstance(module, targets):
            canonical = first.setdefault(id(module), path)
            paths.setdefault(canonical, []).append(path)
    return paths


def select(paths: Mapping[str, Sequence[str]], patterns: str | Sequence[str]) -> list[str]:
    """Canonical paths that match the patterns, in the order of the network.

    Args:
        paths: result of :func:`candidates`.
        patterns: shell pattern or patterns over dotted paths; one that starts with ``!`` takes matches away again.

    Raises:
        SurgeryError: a pattern matches nothing.
    """
    patterns = [patterns] if isinstance(patterns, str) else patterns
    chosen: dict[str, bool] = dict.fromkeys(paths, all(pattern.startswith("!") for pattern in patterns))
    for pattern in patterns:
        bare = pattern.removeprefix("!")
        matches = [path for path, names in paths.items() if any(fnmatch.fnmatchcase(name, bare) for name in names)]
        if not matches and paths:
            close = close_matches(bare, (name for names in paths.values() for name in names))
            msg = f"layer pattern {pattern!r} matches none of {', '.join(paths)}{did_you_mean(close)}"
            raise SurgeryError(msg)
        for path in matches:
            chosen[path] = not pattern.startswith("!")
    return [path for path, wanted in chosen.items() if wanted]


def outputs_of(model: nn.Module, example_input: Any) -> Sequence[torch.Tensor]:
    """Call the network on an example (a tensor, a tuple of arguments or a dictionary of them) and collect the tensors it returns."""
    if isinstance(example_input, Mapping):
        result = model(**example_input)
    elif isinstance(example_input, tuple | list):
        result = model(*example_input)
    else:
        result = model(example_input)
    return [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]


def trace(model: nn.Module, paths: Sequence[str], example_input: Any) -> Trace:
    """Run the example input and record every call of the modules at ``paths``.

    Raises:
        SurgeryError: the network does not accept the example input.
    """
    calls: dict[str, list[Call]] = {path: [] for path in paths}
    handles = []
    for path in paths:

        def record(module: nn.Module, args: tuple[Any, ...], output: torch.Tensor, path: str = path) -> None:
            calls[path].append(Call(input=args[0].detach(), output=output.detach()))

        handles.append(model.get_submodule(path).register_forward_hook(record))
    try:
        with undisturbed(model), torch.no_grad():
            outputs = outputs_of(model, example_input)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        msg = f"the network does not accept the example input ({_in_words(example_input)}): {reason}"
        raise SurgeryError(msg) from error
    finally:
        for handle in handles:
            handle.remove()
    return Trace(calls=calls, outputs=outputs)


def _in_words(example_input: Any) -> str:
    """Shapes of an example input, for messages."""
    names = []
    for leaf in tree_leaves(example_input):
        tensor = isinstance(leaf, torch.Tensor)
        names.append(f"{list(leaf.shape)} {str(leaf.dtype).removeprefix('torch.')}" if tensor else type(leaf).__name__)
    return ", ".join(names)


def site_or_reason(model: nn.Module, path: str, calls: Sequence[Call], relaxation: AbstractRelaxation) -> Site | str:
    """The layer with what the trace told of it, or why it cannot be relaxed, whatever the relaxation."""
    module = model.get_submodule(path)
    reason = _opaque(model, module)
    if reason is not None:
        return reason
    if not calls:
        return "it was not called when the example input was run, so its input size is not known"
    spatial = _spatial_dims(module, calls[0])
    shapes = sorted({tuple(call.input.shape[-spatial - 1 :]) for call in calls})
    if len(shapes) > 1:
        sizes = " and ".join(str(list(shape)) for shape in shapes)
        return f"it is called with {len(shapes)} different input sizes ({sizes}), and a relaxed layer has one"
    site = Site(path=path, module=module, input_shape=shapes[0], output_shape=tuple(calls[0].output.shape[-spatial - 1 :]))
    return relaxation.refusal(site) or site


def _spatial_dims(module: nn.Module, call: Call) -> int:
    kernel = getattr(module, "kernel_size", None)
    return len(kernel) if isinstance(kernel, tuple) else call.input.ndim - 2


def _opaque(model: nn.Module, module: nn.Module) -> str | None:
    """Why a module is more than its own parameters."""
    if parametrize.is_parametrized(module):
        return "it is parametrized (torch.nn.utils.parametrize), and its weight is not a free parameter; remove the parametrization first"
    hooks = [name for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks") if getattr(module, name)]
    if hooks:
        return "it has hooks (pruning, old-style weight norm, or your own), which a new layer would not run; remove them first"
    own = {id(parameter) for parameter in module.parameters(recurse=False)}
    for path, other in model.named_modules():
        if other is not module and own & {id(parameter) for parameter in other.parameters(recurse=False)}:
            return f"it shares a parameter with {path or 'the root module'}"
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


def replace(model: nn.Module, paths: Sequence[str], module: nn.Module) -> nn.Module:
    """Put ``module`` at every path; the network itself where the path is empty. Changes ``model`` and returns it."""
    for path in paths:
        if not path:
            return module
        parent, _, name = path.rpartition(".")
        model.get_submodule(parent)._modules[name] = module
    return model


def copy_with(model: nn.Module, new: Mapping[str, tuple[Sequence[str], nn.Module]]) -> nn.Module:
    """A copy of a network with some modules replaced; the replaced ones are never copied (they may be the largest thing in memory)."""
    memo: dict[int, Any] = {}
    for _, (paths, module) in new.items():
        memo[id(model.get_submodule(paths[0]))] = module
    copied: nn.Module = copy.deepcopy(model, memo)
    for paths, module in new.values():
        copied = replace(copied, paths, module)
    return copied
