"""What an attention module says of its heads: how many there are, and which of its parameters are made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol, runtime_checkable

import attrs
import numpy as np
from torch import nn

from anarch_core.constraint import Index

QUERIES = ("num_attention_heads", "num_heads", "n_heads")
KEYS = ("num_key_value_heads", "num_kv_heads", "n_kv_heads")
GROUPS = ("num_key_value_groups",)


@runtime_checkable
class SeparateProjections(Protocol):
    """Attention that makes queries, keys and values by a linear layer each, under the names of Llama."""

    q_proj: nn.Module
    k_proj: nn.Module
    v_proj: nn.Module


@runtime_checkable
class FusedProjections(Protocol):
    """Attention that makes queries, keys and values by one linear layer, in this order, under the name of Phi-3."""

    qkv_proj: nn.Module


@attrs.frozen(kw_only=True)
class Heads:
    """Heads of an attention module.

    Attributes:
        queries: heads of queries.
        keys: heads of keys, and of values.
        parts: names of the parameters whose first axis is made of heads of keys or values -> heads of queries before these, and how often
            these follow: once, or twice for keys and values.
    """

    queries: int
    keys: int
    parts: Mapping[str, tuple[int, int]]

    def labels(self, name: str, keys: int) -> Index:
        """Which of its heads each head of a parameter is a copy of, when there are ``keys`` heads of keys: neighbours are copies of one."""
        before, kinds = self.parts[name]
        copies = np.arange(keys) // (keys // self.keys)
        return np.concatenate([np.arange(before), *(before + kind * self.keys + copies for kind in range(kinds))]).astype(np.int64)


def heads_of(module: nn.Module) -> Heads | str:
    """The heads of an attention module, or why they are not plain, as the end of the sentence "attn cannot be relaxed: ..."."""
    fused = isinstance(module, FusedProjections)
    projections = {name: getattr(module, name) for name in (["qkv_proj"] if fused else ["q_proj", "k_proj", "v_proj"])}
    for name, projection in projections.items():
        if type(projection) is not nn.Linear:
            return f"its {name} is a {type(projection).__name__}, expected a torch.nn.Linear"
        computed = [part for part in ("weight", "bias") if part not in projection._parameters]
        if computed and name != "q_proj":  # which stays as it is
            return f"the {computed[0]} of its {name} is no parameter but computed (pruned, weight norm); make it one first"
    outputs = {name: projection.out_features for name, projection in projections.items()}
    queries, keys = _counted(module, outputs)
    if not queries or not keys or queries % keys:
        return f"how many heads of queries, and of keys and values, it has is not told by {', '.join((*QUERIES, *KEYS, *GROUPS))}, head_dim"
    heads = {"qkv_proj": queries + 2 * keys} if fused else {"k_proj": keys, "v_proj": keys}
    size = getattr(module, "head_dim", None)
    for name, number in heads.items():
        fits = outputs[name] % number == 0 and (name == "v_proj" or size in (None, outputs[name] // number))
        if not fits:
            return f"its {name} has {outputs[name]} outputs, which are not {number} heads{f' of {size}' if size else ''}"
    parts = {
        f"{name}.{parameter}": (queries, 2) if fused else (0, 1)
        for name in heads
        for parameter, _ in projections[name].named_parameters(recurse=False)
    }
    return Heads(queries=queries, keys=keys, parts=parts | dict(_norms(module, keys)))


def _counted(module: nn.Module, outputs: Mapping[str, int]) -> tuple[int | None, int | None]:
    """Heads of queries, and of keys: as the module says, else as its sizes say, else as its config says, which is one for many modules."""
    size, config = getattr(module, "head_dim", None), getattr(module, "config", None)
    queries = _told(module, QUERIES) or _told(config, QUERIES)
    keys = _told(module, KEYS) or (outputs["k_proj"] // size if size and "k_proj" in outputs else _told(config, KEYS))
    groups = _told(module, GROUPS)
    if keys is None:
        whole = outputs.get("qkv_proj", 0) == 3 * (queries or 0) * (size or 0) if "qkv_proj" in outputs else len(set(outputs.values())) == 1
        return (queries or 1, queries or 1) if whole else (None, None)
    return keys * groups if groups else queries, keys


def _told(holder: object, names: tuple[str, ...]) -> int | None:
    """A number that is held under one of these names."""
    found = (getattr(holder, name, None) for name in names)
    return next((number for number in found if isinstance(number, int) and number > 0), None)


def _norms(module: nn.Module, keys: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """Parameters of a norm of keys that has numbers for every head, as in OLMo 2 and Cohere: repeating heads changes no mean."""
    size = getattr(module, "head_dim", None)
    for name, parameter in getattr(module, "k_norm", nn.Identity()).named_parameters():
        if size and keys > 1 and parameter.numel() == keys * size:
            yield f"k_norm.{name}", (0, 1)
