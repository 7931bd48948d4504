"""Networks on disk: one safetensors file is enough to build a relaxed network again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import attrs
import torch
from torch import nn

from anarch_core.checkpoint.backing import require_layers, require_model, stored_numbers, stored_shapes
from anarch_core.checkpoint.description import Description, other_metadata, read_description
from anarch_core.checkpoint.file import read_header
from anarch_core.checkpoint.header import Header
from anarch_core.checkpoint.schema import BASE, DELTA, RELAXED
from anarch_core.checkpoint.state import load_state, read_tensors, save_state, torch_dtype
from anarch_core.checkpoint.wrappers import renamed, uncompiled
from anarch_core.errors import AnarchError, CheckpointError, OtherVersionWarning, UnknownComponentError, warn
from anarch_core.models import ModelSpec
from anarch_core.network import copied, unwrapped
from anarch_core.plugin.registry import Registry, get_registry
from anarch_core.relaxation.fingerprint import fingerprint
from anarch_core.relaxation.verbs import AppliedRelaxation, applied_relaxations, reapply
from anarch_core.schedule import Moment
from anarch_core.sharding.shards import Shards
from anarch_core.sharding.shared_out import cuts_of, shards_of

T = TypeVar("T")

__all__ = ["load", "load_state", "read_header", "save", "save_state"]


def save(
    model: nn.Module,
    path: str | Path,
    *,
    model_spec: ModelSpec | None = None,
    moment: Moment | None = None,
    parent: nn.Module | None = None,
    extra: Mapping[str, str] | None = None,
    shards: Shards | None = None,
) -> None:
    """Write a network, relaxed or not, to a safetensors file; equal networks give equal bytes.

    A network that is not relaxed can be read by ``safetensors.torch.load_file`` and ``load_state_dict`` alone.

    Args:
        model: any module whose state is made of tensors; of a compiled one, or one wrapped for several devices, the network inside.
        path: the file; replaced if it exists.
        model_spec: what the base model was built from, so that :func:`load` can build it; by default what :func:`load` noted on the model.
        moment: the moment of training, for the record.
        parent: the network that ``model`` was just relaxed from. Its tensors are stored in place of the model's (an eFCN can be a hundred
            times larger) and the relaxation is repeated by :func:`load`, to the same bits.
        extra: further metadata; keys of one's own are ``anarch.x.<distribution>.<key>``.
        shards: processes that all call this in step, of which the first writes the file that one process would write; by default those
            among which the layers of ``model`` are shared out. New in 1.3.

    Raises:
        CheckpointError: the state cannot be stored; or relaxing ``parent`` does not give ``model``; or the file cannot be written.
    """
    model, parent = unwrapped(model), None if parent is None else unwrapped(parent)
    applied = [
        attrs.evolve(each, layers=_uncompiled(each.layers), materialised=_uncompiled(each.materialised), calls=_uncompiled(each.calls))
        for each in applied_relaxations(model)
    ]
    shards = shards_of(model) or shards
    lifted = 0 if parent is None else _lifted(model, parent, shards)
    description = Description(
        kind=DELTA if lifted else RELAXED if applied else BASE,
        model=model_spec.to_dict() if model_spec is not None else getattr(model, "anarch_model", None),
        relaxations=tuple(_record(relaxation) for relaxation in applied),
        lifted=lifted,
        step=moment,
    )
    stored = model if parent is None else parent
    metadata = other_metadata(extra or {}) | description.to_metadata()
    save_state(path, _state(stored), metadata, cuts=_uncompiled(cuts_of(stored)), shards=shards)


def load(
    path: str | Path,
    *,
    model: nn.Module | None = None,
    device: str | torch.device = "cpu",
    shards: Shards | None = None,
    registry: Registry | None = None,
) -> nn.Module:
    """Build the network that a file holds, relaxed as it was, with its weights and their dtypes.

    Nothing that a file names is imported: models and relaxations are looked up among the installed plugins.

    Args:
        path: a file of :func:`save`, or any safetensors file of a state dict.
        model: a network of the base architecture, weights arbitrary; never changed. Needed where the file does not name a registered model.
            For a file without a record of relaxations, which another tool wrote of a relaxed network, one that is relaxed likewise.
        device: where the network is put.
        shards: processes among which the output channels of relaxed layers are shared out, however many there were when it was saved; all
            of them call this in step, and each reads its part alone. New in 1.3.
        registry: where names are looked up, the installed plugins by default.

    Returns:
        a network in the mode (training or evaluation) of ``model``; in training mode, as PyTorch builds it, without one.

    Raises:
        CheckpointError: the file is missing, truncated or altered, does not fit the model, or needs a plugin that is not installed.
    """
    path = Path(path)
    header = read_header(path)
    description = read_description(header, path) if header.ours else Description(kind=BASE)
    registry = registry or get_registry()
    applied = [_relaxation(record, registry, path) for record in description.relaxations]
    stored = len(applied) - description.lifted
    network = _base_model(description, model, header, registry, path)
    if description.model is not None:
        network.anarch_model = dict(description.model)  # type: ignore[assignment]  # plain data beside the weights, for save
    sizes = stored_numbers(header)
    _cast(network, header, path)
    for place, relaxation in enumerate(applied[:stored], start=1):
        require_layers(network, relaxation, sizes, path, registry, later=applied[place:stored])
        network = reapply(network, [relaxation], shards=shards, registry=registry)
    _fill(network, header, path)  # only now: what is missing is told before a large file is read
    for relaxation in applied[stored:]:
        require_layers(network, relaxation, None, path, registry)
        network = reapply(network, [relaxation], shards=shards, registry=registry)
    return network.to(device)


def _lifted(model: nn.Module, parent: nn.Module, shards: Shards | None) -> int:
    """How many relaxations lead from ``parent`` to ``model``, once it is certain that they give these very weights."""
    before, after = applied_relaxations(parent), applied_relaxations(model)
    if after[: len(before)] != before or len(after) == len(before):
        msg = "the parent is not a network that the model was relaxed from; save the model without it"
        raise CheckpointError(msg)
    again, state = _state(reapply(parent, after[len(before) :], shards=shards)), _state(model)
    names = sorted(again.keys() | state.keys())
    differs = [float(not (name in again and name in state and torch.equal(again[name].cpu(), state[name].cpu()))) for name in names]
    for name, anywhere in zip(names, differs if shards is None else shards.totals(differs), strict=True):
        if anywhere:
            msg = f"relaxing the parent does not give the model: {name!r} differs; it was trained since, so save it without its parent"
            raise CheckpointError(msg)
    return len(after) - len(before)


def _state(model: nn.Module) -> dict[str, torch.Tensor]:
    state = model.state_dict()
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            msg = f"{name!r} of {type(model).__name__} is a {type(value).__name__}; only tensors can be stored"
            raise CheckpointError(msg)
    return {uncompiled(name): value for name, value in state.items()}


def _uncompiled(layers: Mapping[str, T]) -> dict[str, T]:
    return {uncompiled(path): value for path, value in layers.items()}


def _record(applied: AppliedRelaxation) -> dict[str, Any]:
    """What a file says of a relaxation; of what files of earlier versions say nothing of only where there is something to say."""
    left_out: dict[str, object] = {"materialised": {}, "calls": {}, "digest": None}
    return attrs.asdict(applied, filter=lambda field, value: field.name not in left_out or value != left_out[field.name])


def _relaxation(record: Mapping[str, Any], registry: Registry, path: Path) -> AppliedRelaxation:
    names = {field.name for field in attrs.fields(AppliedRelaxation)}
    try:
        shapes = {
            key: {layer: tuple(int(size) for size in shape) for layer, shape in record[key].items()}
            for key in ("layers", "materialised")
            if key in record or key == "layers"
        }
        applied = AppliedRelaxation(**{key: value for key, value in record.items() if key in names} | shapes)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        msg = f"{path} has a record of a relaxation that makes no sense: {error}"
        raise CheckpointError(msg) from error
    try:
        info = registry.find("relaxation", f"{applied.name}@{applied.distribution}")
    except UnknownComponentError as error:
        msg = (
            f"{path} needs the relaxation {applied.name!r} of {applied.distribution} {applied.version}, "
            f"which is not there (see 'anarch plugins list'); pip install {applied.distribution}=={applied.version}"
        )
        raise CheckpointError(msg) from error
    _require_same(applied, registry, registry.owner(info)[1], path)
    return applied


def _require_same(applied: AppliedRelaxation, registry: Registry, version: str, path: Path) -> None:
    """Refuse, or warn of, a relaxation that does something else than the one of its name that was applied."""
    if applied.digest is None:
        return  # of an earlier version, which did not say
    relaxation = registry.create("relaxation", applied.name, applied.options)
    dimensions = len(next(iter(applied.layers.values()), ())) - 1
    digest = fingerprint(relaxation, dimensions)
    which = f"{applied.name!r} of {applied.distribution} {applied.version}"
    if applied.digest and digest and applied.digest != digest:
        msg = (
            f"{path} was relaxed by {which}, and what is installed, version {version}, does something else: the network would be another; "
            f"pip install {applied.distribution}=={applied.version}"
        )
        raise CheckpointError(msg)
    if applied.version != version and not (applied.digest and digest):
        warn(f"{path} was relaxed by {which}; installed is {version}, and whether it does the same cannot be seen", OtherVersionWarning)


def _base_model(description: Description, model: nn.Module | None, header: Header, registry: Registry, path: Path) -> nn.Module:
    if model is not None:
        model = unwrapped(model)
        if header.ours and applied_relaxations(model):
            msg = f"the model given for {path} is relaxed already; expected the base model, which the file's relaxations are applied to"
            raise CheckpointError(msg)
        return copied(model)
    try:
        spec = None if description.model is None else ModelSpec.from_dict(description.model)
        if spec is not None and not spec.is_import:
            require_model(spec, header, description.relaxed, path, registry)
            return spec.build(registry=registry)
    except CheckpointError:
        raise
    except AnarchError as error:
        msg = f"{path} holds a model that cannot be built here: {error}"
        raise CheckpointError(msg) from error
    what = "does not say how its model is built" if spec is None else f"holds a model of {spec.name}, which is not imported from a file"
    msg = f"{path} {what}; build the base model and pass it: anarch_core.load({path.name!r}, model=...)"
    raise CheckpointError(msg)


def _cast(model: nn.Module, header: Header, path: Path) -> None:
    """Give a model the one floating dtype of a file, buffers made on the way to relaxed layers included."""
    dtypes = {torch_dtype(name, entry, path) for name, entry in header.tensors.items()}
    floating = {dtype for dtype in dtypes if dtype.is_floating_point}
    if len(floating) == 1:
        model.to(dtype=floating.pop())


def _fill(model: nn.Module, header: Header, path: Path) -> None:
    """Read a file into a model, or into this process's part of it, with the file's dtypes; the message of a misfit is all in one line."""
    ours = {name: value for name, value in model.state_dict(keep_vars=True).items() if isinstance(value, torch.Tensor)}
    cuts, shapes = cuts_of(model), stored_shapes(header)
    wholes = {name: cuts[name].shape if name in cuts else tuple(value.shape) for name, value in ours.items()}
    names = renamed({name: name for name in shapes}, ours)
    problems = [
        f"{name!r} has shape {shapes[names[name]]} in the file, {whole} in the model"
        for name, whole in wholes.items()
        if name in names and shapes[names[name]] != whole
    ]
    if not problems:
        own = _unshared(ours.values())  # filled where they are: there is no room for a second network
        tensors, _ = read_tensors(
            path,
            cuts={theirs: cuts[name] for name, theirs in names.items() if name in cuts},
            into={theirs: ours[name].detach() for name, theirs in names.items() if name in ours and ours[name].data_ptr() in own},
        )
        tensors = renamed(tensors, ours)
        for name, value in ours.items():  # mixed precision: one by one, in place, so that shared parameters stay shared
            if name in tensors and value.is_floating_point() and tensors[name].is_floating_point():
                value.data = value.data.to(tensors[name].dtype)
        result = model.load_state_dict(tensors, strict=False)
        filled = {ours[name].data_ptr() for name in tensors.keys() & ours.keys()}
        missing = [name for name in result.missing_keys if name not in ours or ours[name].data_ptr() not in filled]
        problems += _listed("missing in the file", missing) + _listed("unknown to the model", result.unexpected_keys)
    if problems:
        msg = f"{path} does not fit {type(model).__name__}: {'; '.join(problems[:3])}"
        msg = msg if len(problems) <= 3 else f"{msg}; and {len(problems) - 3} more"
        if any(name in names and len(shapes[names[name]]) != len(whole) for name, whole in wholes.items()):
            msg += "; if these are the weights of a relaxed network, without a record of it, pass a model that is relaxed likewise"
        raise CheckpointError(msg)


def _unshared(tensors: Collection[torch.Tensor]) -> set[int]:
    """Where the memory of those begins that lie in the host's, contiguous, and have it for themselves."""
    counts = Counter(tensor.data_ptr() for tensor in tensors)
    return {
        tensor.data_ptr()
        for tensor in tensors
        if counts[tensor.data_ptr()] == 1
        and tensor.device.type == "cpu"
        and tensor.is_contiguous()
        and not (tensor.is_conj() or tensor.is_neg())
        and tensor.untyped_storage().nbytes() == tensor.nbytes
    }


def _listed(what: str, names: Iterable[str]) -> list[str]:
    names = list(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [f"{what}: {', '.join(names[:3])}{more}"] if names else []
