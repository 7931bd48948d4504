"""Keys and values for every head: which rows are copies of which, what has nothing to relax, and what cannot."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

from anarch_core import drift, project, relax
from anarch_core.errors import SurgeryError
from anarch_core.models import build_model
from anarch_core.relaxation import Site
from anarch_core.testing.cases import Case
from anarch_plugins.models.vit.attention import GroupedQueryAttention
from anarch_plugins.relaxations.heads.options import HeadsOptions
from anarch_plugins.relaxations.heads.relaxation import HeadsRelaxation
from tests.plugins.relaxations.explicit import check_generated, matrix


def heads(kv_heads: int | None = None) -> HeadsRelaxation:
    return HeadsRelaxation(HeadsOptions(kv_heads=kv_heads))


def site(module: nn.Module) -> Site:
    return Site(path="attn", module=module, input_shape=(), output_shape=())


@st.composite
def attention(draw: st.DrawFn) -> Case:
    kv_heads, groups, size = draw(st.integers(1, 2)), draw(st.sampled_from([1, 2, 3, 4])), draw(st.integers(1, 3))
    heads = kv_heads * groups
    torch.manual_seed(draw(st.integers(0, 99)))
    layer = GroupedQueryAttention(heads * size, heads, kv_heads).double()
    return Case(layer, torch.randn(2, 3, heads * size, dtype=torch.float64))


@pytest.mark.parametrize("kv_heads", [None, 2, 4])
def test_is_exact_and_projects_as_least_squares_does(kv_heads: int | None) -> None:
    def references(layer: Any) -> dict[str, np.ndarray]:
        kept = layer.k_proj.out_features // layer.head_dim
        copies = (kv_heads or kept * layer.num_key_value_groups) // kept

        def repeated(theta: np.ndarray) -> np.ndarray:
            return np.concatenate([block for block in np.split(theta, kept) for _ in range(copies)])

        return {name: matrix(repeated, tuple(layer.get_parameter(name).shape)) for name in ("k_proj.weight", "v_proj.weight")}

    check_generated(attention(), heads(kv_heads), references)


def test_by_steps_and_back_in_one() -> None:
    torch.manual_seed(0)
    network, x = nn.Sequential(GroupedQueryAttention(16, 8, 1, (5,))).double(), torch.randn(2, 5, 16).double()
    model, parameters = network, []
    for relaxation, options in (("heads", {"kv_heads": 2}), ("positions", {}), ("heads", {"kv_heads": 4}), ("heads", {})):
        model = relax(model, relaxation, example_input=x, options=options).model
        parameters.append(sum(parameter.numel() for parameter in model.parameters()))
        assert (model(x) - network(x)).abs().max() < 1e-12
        back = project(model)[0]
        assert type(back) is GroupedQueryAttention
        assert back.num_key_value_groups == 8
        assert all(torch.allclose(ours, theirs) for ours, theirs in zip(back.parameters(), network[0].parameters(), strict=True))
        assert (project(model)(x) - network(x)).abs().max() < 1e-12
    assert parameters == sorted(set(parameters))
    assert model[0].num_key_value_groups == 1
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    assert drift(model).total.unshared > 0
    assert drift(model).total.off_local == 0


class Projected(nn.Module):
    """Attention of 4 heads of queries and 2 of keys; how queries, keys and values are made, and what says how many they are, is open."""

    def __init__(self, **told: Any) -> None:
        super().__init__()
        self.head_dim = 2
        for name, value in told.items():
            setattr(self, name, value)

    def numbers(self) -> tuple[int, int]:
        """Heads of queries and of keys."""
        return self.num_heads, self.num_kv_heads

    def projected(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        queries, keys, values = (part.unflatten(-1, (-1, 2)).transpose(1, 2) for part in self.projected(x))
        assert (queries.shape[1], keys.shape[1]) == self.numbers()
        return nn.functional.scaled_dot_product_attention(queries, keys, values, enable_gqa=True).transpose(1, 2).flatten(2)


class Fused(Projected):
    """All by one layer, as in Phi-3."""

    def projected(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        queries, keys = self.numbers()
        return self.qkv_proj(x).split([2 * queries, 2 * keys, 2 * keys], dim=-1)


class Configured(Fused):
    """The same, which asks a config for its numbers."""

    def numbers(self) -> tuple[int, int]:
        return self.config.num_attention_heads, self.config.num_key_value_heads


class Normed(Projected):
    """A norm over the keys of all heads, as in OLMo 2."""

    def projected(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        queries, keys, values = super().projected(x)
        return queries, self.k_norm(keys), values


CONFIG = SimpleNamespace(num_attention_heads=4, num_key_value_heads=2)


def attentions() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    separate = {"q_proj": nn.Linear(6, 8), "k_proj": nn.Linear(6, 4), "v_proj": nn.Linear(6, 4, bias=False)}
    norm = nn.RMSNorm(4)
    nn.init.normal_(norm.weight)
    made = {
        "separate": Projected(num_heads=4, num_kv_heads=2, **separate),
        "fused": Fused(num_heads=4, num_kv_heads=2, qkv_proj=nn.Linear(6, 16)),
        "configured": Configured(config=CONFIG, qkv_proj=nn.Linear(6, 16)),
        "normed": Normed(num_heads=4, num_kv_heads=2, k_norm=norm, **separate),
    }
    return {name: module.double() for name, module in made.items()}


@pytest.mark.parametrize("name", attentions())
def test_modules_of_others_by_what_they_have(name: str) -> None:
    network, x = nn.Sequential(attentions()[name]), torch.randn(2, 3, 6).double()
    model = relax(network, "heads", example_input=x).model
    assert (model(x) - network(x)).abs().max() < 1e-12
    assert model[0].free.numbers() == (4, 4)
    assert network[0].numbers() == project(model)[0].numbers() == (4, 2)
    assert (project(model)(x) - network(x)).abs().max() < 1e-12
    assert heads().idle(site(model[0])) == "it has keys and values for every head of queries"


def test_blocks_of_one_layer_for_all() -> None:
    model = relax(nn.Sequential(attentions()["fused"]), "heads", example_input=torch.randn(1, 1, 6).double()).model
    with torch.no_grad():
        model[0].free.qkv_proj.weight.normal_()
    blocks = model[0].qkv_proj.weight.view(12, 2, 6)
    expected = torch.cat([blocks[:4], blocks[4:].view(4, 2, 2, 6).mean(1)]).view(16, 6)
    assert torch.allclose(project(model)[0].qkv_proj.weight, expected)


def test_layers_that_share_keys_already_have_nothing_to_do() -> None:
    model = build_model("vit", input_shape=(1, 8), classes=2, options={"kv_heads": 4, "depth": 1})
    report = relax(build_model("vit", input_shape=(1, 8), classes=2), "heads", example_input=torch.randn(1, 1, 8), options={"kv_heads": 2})
    assert heads().idle(site(model.blocks[0].attn)) == "it has keys and values for every head of queries"
    assert heads(2).idle(site(report.model.blocks[0].attn)) == "it has 2 heads of keys and values"
    assert heads(4).idle(site(report.model.blocks[0].attn)) is None


def test_projections_that_are_none_have_nothing_to_relax() -> None:
    module = Projected(q_proj=None, k_proj=None, v_proj=None, num_heads=4)
    assert heads().idle(site(module)) == "it has no q_proj"


def pruned() -> nn.Module:
    module = GroupedQueryAttention(12, 6, 2)
    prune.l1_unstructured(module.k_proj, "weight", 0.5)
    return module


def test_what_is_pruned_beside_keys_and_values_stays_pruned() -> None:
    module, x = GroupedQueryAttention(12, 6, 2), torch.randn(2, 4, 12)
    prune.l1_unstructured(module.q_proj, "weight", 0.5)
    network = nn.Sequential(module)
    network(x).sum().backward()
    relaxed = relax(network, "heads", example_input=x)
    assert relaxed.report.exact
    assert prune.is_pruned(project(relaxed.model)[0].q_proj)


@pytest.mark.parametrize(
    ("module", "kv_heads", "told"),
    [
        (GroupedQueryAttention(12, 6, 2), 3, "kv_heads = 3 is no multiple of its 2 heads of keys and values that divides its 6 heads"),
        (GroupedQueryAttention(12, 6, 2), 12, "kv_heads = 12 is no multiple"),
        (Projected(q_proj=nn.Linear(6, 8), k_proj=nn.Bilinear(6, 6, 4), v_proj=nn.Linear(6, 4)), None, "its k_proj is a Bilinear"),
        (Projected(q_proj=nn.Linear(6, 8), k_proj=nn.Linear(6, 4), v_proj=nn.Linear(6, 4)), None, "how many heads of queries"),
        (pruned(), None, "the weight of its k_proj is no parameter but computed (pruned, weight norm)"),
        (Fused(num_heads=4, num_kv_heads=2, qkv_proj=nn.Linear(6, 24)), None, "its qkv_proj has 24 outputs, which are not 8 heads of 2"),
    ],
)
def test_what_is_refused(module: nn.Module, kv_heads: int | None, told: str) -> None:
    assert (heads(kv_heads).refusal(site(module)) or "").startswith(told)


class Moonshine(Fused):
    """Its numbers of heads are its own, and it asks its config nevertheless."""

    def numbers(self) -> tuple[int, int]:
        return self.config.num_attention_heads, self.config.num_key_value_heads


def test_what_it_does_not_understand_is_an_error_that_names_the_layer() -> None:
    module = Moonshine(config=CONFIG, num_key_value_heads=2, num_key_value_groups=2, qkv_proj=nn.Linear(6, 16))
    with pytest.raises(SurgeryError, match="its layer 0 raises RuntimeError: split_with_sizes"):
        relax(nn.Sequential(module), "heads", example_input=torch.randn(1, 1, 6))


class Cache:
    """Keys and values of the tokens so far, by layer."""

    def __init__(self) -> None:
        self.held: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def update(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        before = self.held.get(layer)
        self.held[layer] = (keys, values) if before is None else (torch.cat([before[0], keys], 2), torch.cat([before[1], values], 2))
        return self.held[layer]


class Cached(Projected):
    """Attention that puts its keys and values into a cache that it is given, and returns a tuple, as in transformers."""

    def forward(self, x: torch.Tensor, *, cache: Cache) -> tuple[torch.Tensor, None]:
        queries, keys, values = (part.unflatten(-1, (-1, 2)).transpose(1, 2) for part in self.projected(x))
        keys, values = cache.update(self.place, keys, values)
        return nn.functional.scaled_dot_product_attention(queries, keys, values, enable_gqa=True).transpose(1, 2).flatten(2), None


class Decoder(nn.Module):
    """Two layers with one cache, which it makes anew."""

    def __init__(self) -> None:
        super().__init__()
        told = {"num_heads": 4, "num_kv_heads": 2}
        self.layers = nn.ModuleList(
            Cached(place=place, q_proj=nn.Linear(8, 8), k_proj=nn.Linear(8, 4), v_proj=nn.Linear(8, 4), **told) for place in range(2)
        ).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        cache = Cache()
        for layer in self.layers:
            x = x + layer(x, cache=cache)[0]
        return x


def test_a_cache_is_not_filled_by_the_check() -> None:
    torch.manual_seed(0)
    relaxed = relax(Decoder(), "heads", example_input=torch.randn(2, 3, 8).double())
    assert relaxed.report.exact
