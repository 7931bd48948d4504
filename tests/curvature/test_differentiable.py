"""Curvature of networks whose fast kernels have no second derivative, against dense Hessians of the same formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.autograd.function import once_differentiable as marked_once_differentiable
from torch.utils.checkpoint import checkpoint

from anarch_core.curvature.differentiable import differentiable, once_differentiable
from anarch_core.curvature.risk import GaussNewtonOperator, HessianOperator, Risk
from anarch_core.errors import ProbeError

from .conftest import dense_hessian
from .test_risk import columns


class Sequence(nn.Module):
    """Reads [batch, 5, 4] by some layer and classifies the mean over the places."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if isinstance(self.layer, nn.MultiheadAttention):
            hidden = self.layer(x, x, x, need_weights=False)[0]
        elif isinstance(self.layer, nn.RNNBase):
            hidden = self.layer(x)[0]
        elif isinstance(self.layer, nn.Linear):
            hidden = nn.functional.scaled_dot_product_attention(*self.layer(x)[:, None].chunk(3, -1), is_causal=True)[:, 0]
        else:
            hidden = self.layer(x)
        return self.head(hidden.mean(1))


ATTENTION = {
    "attention": lambda: nn.MultiheadAttention(4, 2, batch_first=True),
    "transformer": lambda: nn.TransformerEncoderLayer(4, 2, 5, dropout=0.1, activation="gelu", batch_first=True),
    "function": lambda: nn.Linear(4, 12),
}
RECURRENT = {
    "rnn": lambda: nn.RNN(4, 4, batch_first=True),
    "lstm": lambda: nn.LSTM(4, 4, batch_first=True),
    "gru": lambda: nn.GRU(4, 4, batch_first=True),
}


def by_the_formula(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, **_) -> torch.Tensor:
    assert attn_mask is None
    assert dropout_p == 0
    products = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    if is_causal:
        products = products + torch.full(products.shape[-2:], -math.inf, dtype=products.dtype).triu(1)
    return products.softmax(-1) @ value


def reading(build) -> tuple[Sequence, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return Sequence(build()).double(), torch.randn(6, 5, 4, dtype=torch.float64), torch.randint(3, (6,))


@pytest.mark.parametrize("build", [*ATTENTION.values(), *RECURRENT.values()], ids=[*ATTENTION, *RECURRENT])
def test_the_hessian_is_the_dense_one(build, monkeypatch) -> None:
    model, x, y = reading(build)
    operators = [HessianOperator(Risk(model, x, y, batch_size=size)) for size in (6, 4)]
    vectors = torch.randn(3, operators[0].size, dtype=torch.float64)
    found = [torch.stack([operator @ vector for vector in vectors]) for operator in operators]
    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", by_the_formula)
    expected = vectors @ dense_hessian(model, x, y)
    for products in found:
        torch.testing.assert_close(products, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("build", [ATTENTION["attention"], ATTENTION["function"]], ids=["attention", "function"])
def test_the_gauss_newton_matrix_is_that_of_the_formula(build, monkeypatch) -> None:
    model, x, y = reading(build)
    operator = GaussNewtonOperator(Risk(model, x, y))
    vectors = torch.randn(3, operator.size, dtype=torch.float64)
    found = torch.stack([operator @ vector for vector in vectors])
    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", by_the_formula)
    outputs = model.eval()(x)
    rows = [torch.autograd.grad(output, list(model.parameters()), retain_graph=True) for output in outputs.flatten()]
    jacobian = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows]).unflatten(0, outputs.shape)
    p = outputs.softmax(1).detach()
    curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    expected = torch.einsum("ncp,ncd,ndq,kq->kp", jacobian, curvature, jacobian, vectors) / 6
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


class Padded(nn.Module):
    """An encoder that masks the last place and is read there."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 5, batch_first=True), 1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(x.shape[:2], dtype=torch.bool)
        mask[:, -1] = True
        hidden = self.encoder(x, src_key_padding_mask=mask)
        return self.head(hidden.sum(1) + (hidden[:, -1] if hidden.shape[1] == x.shape[1] else 0))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_value_and_gradient_are_of_one_function_where_tokens_are_masked() -> None:
    torch.manual_seed(0)
    model, x, y = Padded().double(), torch.randn(6, 5, 4, dtype=torch.float64), torch.randint(3, (6,))
    with torch.no_grad():
        fast = float(nn.functional.cross_entropy(model.eval()(x), y))
    differentiated = float(nn.functional.cross_entropy(model(x), y).detach())
    assert fast != pytest.approx(differentiated, rel=1e-3)
    assert Risk(model, x, y).value() == pytest.approx(differentiated, rel=1e-12)


@pytest.mark.parametrize(("build", "used"), [(RECURRENT["lstm"], False), (ATTENTION["attention"], True)], ids=["lstm", "attention"])
def test_recurrent_layers_do_without_cudnn_and_settings_are_put_back(build, used, monkeypatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "enabled", True)
    model, x, y = reading(build)
    seen = []
    model.register_forward_hook(lambda *_: seen.append((torch.backends.cudnn.enabled, torch.backends.mha.get_fastpath_enabled())))
    risk = Risk(model, x, y)
    risk.value(), risk.gradient()
    assert seen == [(used, False)] * 2
    with pytest.raises(ZeroDivisionError), differentiable(model):
        raise ZeroDivisionError
    assert torch.backends.cudnn.enabled
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @marked_once_differentiable
    def backward(ctx, slope):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * slope


class WithoutGraph(Once):
    @staticmethod
    def backward(ctx, slope):
        (x,) = ctx.saved_tensors
        with torch.no_grad():
            return 3 * x**2 * slope


class NotImplementedTwice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, slope):
        return SlopeOfCube.apply(ctx.saved_tensors[0], slope)


class SlopeOfCube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, slope):
        return 3 * x**2 * slope

    @staticmethod
    def backward(ctx, _):
        raise NotImplementedError("no second derivative")


class Cube(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function.apply(x)


@pytest.mark.parametrize("operator", [HessianOperator, GaussNewtonOperator])
@pytest.mark.parametrize("function", [Once, WithoutGraph, NotImplementedTwice])
def test_a_layer_that_cannot_be_differentiated_twice_is_named(function, operator) -> None:
    inner = nn.Sequential(nn.Linear(4, 5), Cube(function), nn.Tanh())
    model = nn.Sequential(inner, nn.Linear(5, 3)).double()
    x, y = torch.randn(6, 4, dtype=torch.float64), torch.randint(3, (6,))
    assert once_differentiable(model, x) == {"0.1": "Cube"}
    risk = Risk(model, x, y)
    assert risk.gradient().any()
    with pytest.raises(ProbeError, match=r"0\.1 \(Cube\) cannot be differentiated twice \("):
        operator(risk) @ torch.ones(risk.size, dtype=torch.float64)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_layer_that_is_flat_has_the_curvature_of_zero() -> None:
    class Rounded(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).round()

    torch.manual_seed(0)
    model = nn.Sequential(Rounded(4, 5), nn.Linear(5, 3)).double()
    x, y = torch.randn(6, 4, dtype=torch.float64), torch.randint(3, (6,))
    torch.testing.assert_close(columns(HessianOperator(Risk(model, x, y))), dense_hessian(model, x, y), rtol=1e-9, atol=1e-12)
    assert once_differentiable(model, x) == {}


def test_a_loss_that_does_not_depend_on_the_parameters_has_no_curvature_of_zero() -> None:
    class Cut(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                return super().forward(x)

    risk = Risk(Cut(4, 3), torch.randn(6, 4), torch.randint(3, (6,)))
    ones = torch.ones(risk.size)
    for measure in (risk.gradient, lambda: HessianOperator(risk) @ ones, lambda: GaussNewtonOperator(risk) @ ones):
        with pytest.raises(ProbeError, match=r"no way from the outputs to the parameters weight, bias.*torch.no_grad"):
            measure()


class Checkpointed(nn.Module):
    def __init__(self, *, reentrant: bool) -> None:
        super().__init__()
        self.first, self.second, self.reentrant = nn.Linear(4, 4), nn.Linear(4, 3), reentrant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inputs = x.clone().requires_grad_()
        return self.second(checkpoint(self.first, inputs, use_reentrant=self.reentrant).tanh())


def test_parameters_that_checkpointing_hides_have_no_derivative_of_zero() -> None:
    torch.manual_seed(0)
    hidden, seen = (Checkpointed(reentrant=reentrant).double() for reentrant in (True, False))
    x, y = torch.randn(6, 4, dtype=torch.float64), torch.randint(3, (6,))
    dense = dense_hessian(nn.Sequential(seen.first, nn.Tanh(), seen.second), x, y)
    torch.testing.assert_close(columns(HessianOperator(Risk(seen, x, y))), dense, rtol=1e-9, atol=1e-12)
    for measure in (
        lambda risk: risk.gradient(),
        lambda risk: HessianOperator(risk) @ torch.ones(risk.size, dtype=torch.float64),
        lambda risk: GaussNewtonOperator(risk) @ torch.ones(risk.size, dtype=torch.float64),
    ):
        with pytest.raises(ProbeError, match="under reentrant checkpointing"):
            measure(Risk(hidden, x, y))
