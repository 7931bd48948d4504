"""Measure anarch on a card: training steps against their floors, captured and not, small siblings, λ_max, and memory against the plan.

    python tests/benchmarks/gpu.py [CASE ...] [--small] [--device DEVICE] [--json FILE]

Everything was measured in one run. The floor of a step is the larger of its FLOPs over the rate of a large matrix product in that precision
and its bytes over the rate of a large copy. Without a card it runs on the processor, where nothing is captured: `--small` makes it short.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import torch
from dense import plain_network
from gpu_siblings import siblings
from measure import Step, Table
from on_card import RATE, SMALL, Size, epochs_of, milliseconds, seconds_of, training
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import cross_entropy

import anarch_core
from anarch_core.config.values import Precision
from anarch_core.curvature.lanczos import extreme_eigenvalues
from anarch_core.curvature.risk import HessianOperator, Risk
from anarch_core.layers.base import relaxed_layers
from anarch_core.models import build_model
from anarch_core.relaxation.verbs import relax
from anarch_core.training.precision import matmul_precision

PRECISIONS: tuple[Precision, ...] = ("float32", "tf32", "bfloat16")


@attrs.frozen
class Rates:
    """What the device does: multiply-adds of large products, counted as two, per second by precision, and bytes of a large copy."""

    flops: dict[Precision, float]
    bytes: float

    @classmethod
    def of(cls, device: torch.device, size: Size) -> Rates:
        flops: dict[Precision, float] = {}
        for precision in PRECISIONS:
            dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
            a, b, c = (torch.randn(size.matrix, size.matrix, device=device).to(dtype) for _ in range(3))
            with matmul_precision(precision):
                flops[precision] = 2 * size.matrix**3 / seconds_of(lambda a=a, b=b, c=c: torch.mm(a, b, out=c), device)
        source, target = (torch.zeros(4 * size.matrix**2, device=device) for _ in range(2))
        return cls(flops, 2 * source.nbytes / seconds_of(lambda: target.copy_(source), device))


def images(size: Size, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    count = size.batch * size.steps
    x, y = torch.randn(count, 3, 32, 32, generator=generator), torch.randint(10, (count,), generator=generator)
    return x.to(device), y.to(device)


def vanilla(relaxation: str, size: Size, device: torch.device) -> nn.Module:
    model = build_model("vanilla-cnn", input_shape=(3, 32, 32), classes=10, options={"channels": size.channels}).to(device)
    example = torch.zeros(2, 3, 32, 32, device=device)
    return model if relaxation == "cnn" else relax(model, relaxation, example_input=example, check=False).model


def floor(model: nn.Module, batch: int, precision: Precision, rates: Rates) -> float | None:
    """Seconds that a step of relaxed layers takes at least: every weight is read for outputs, for input gradients but in the first layer,
    and read and written for its step."""
    layers = list(relaxed_layers(model).values())
    if not layers:
        return None
    weights = [layer.weight.numel() for layer in layers]
    products = [2, *(3 for _ in weights[1:])]
    flops = sum(2 * batch * count * weight for count, weight in zip(products, weights, strict=True))
    moved = sum(4 * (count + 1) * weight for count, weight in zip(products, weights, strict=True))
    return max(flops / rates.flops[precision], moved / rates.bytes)


def steps(device: torch.device, size: Size) -> Iterator[Table]:
    """Steps of the VanillaCNN and its relaxations, captured and not, beside their floors and what one writes without thinking of speed."""
    rates, data = Rates.of(device, size), images(size, device)
    shown = ", ".join(f"{precision} {rate / 1e12:.1f} TFLOP/s" for precision, rate in rates.flops.items())
    rows = []
    for precision in PRECISIONS:
        for name in ("cnn", "efcn", "lcn"):
            found: dict[str, float] = {}
            with matmul_precision(precision):
                for capture in ("auto", "off"):
                    model = vanilla(name, size, device)
                    loop = training(model, data, size.batch, precision, capture)
                    found[capture] = seconds_of(epochs_of(loop), device, loop.iterations_per_epoch)
                    if capture == "auto":
                        why = "captured" if loop.captured else loop.not_captured or "no card"
                plain = seconds_of(unthinking(name, size, data, precision), device) if name == "efcn" and size != SMALL else None
            least = floor(model, size.batch, precision, rates)
            ratio = "" if least is None else f"{found['auto'] / least:.2f}"
            times = (found["auto"], found["off"], plain, least)
            rows.append((f"{name}, {precision}", *map(milliseconds, times), ratio, why))
    title = f"a step of the VanillaCNN, {size.channels} channels, batch {size.batch}; {shown}, {rates.bytes / 1e12:.2f} TB/s"
    yield Table(title, ("", "captured", "not", "nn.Linear, autograd", "floor", "of the floor", ""), rows)


def unthinking(name: str, size: Size, data: tuple[torch.Tensor, torch.Tensor], precision: Precision) -> Step:
    """A padded dense network under autograd, batches in their order."""
    model = plain_network(False).to(data[0].device)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    x, y = (tensor[: size.batch] for tensor in data)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            loss = cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()

    return step


def eigenvalue(device: torch.device, size: Size) -> Iterator[Table]:
    """Hessian-vector products per second, and the largest eigenvalue to 1e-3."""
    x, y = (tensor[:500] for tensor in images(size, device))
    rows = []
    for name in ("cnn", "efcn"):
        operator = HessianOperator(Risk(vanilla(name, size, device).eval(), x, y))
        vector = operator.random_unit(torch.Generator().manual_seed(0))
        product = seconds_of(lambda operator=operator, vector=vector: operator @ vector, device)
        begun, before = time.perf_counter(), operator.products
        found = extreme_eigenvalues(operator, generator=torch.Generator().manual_seed(0), ends=("largest",))["largest"]
        elapsed = time.perf_counter() - begun
        rows.append((name, f"{1 / product:.1f}", milliseconds(elapsed), str(operator.products - before), f"{found.value:.4g}"))
    yield Table(f"Hessian of the VanillaCNN, {len(y)} samples", ("", "products a second", "λ_max", "products", "value"), rows)


def memory(device: torch.device, size: Size) -> Iterator[Table]:
    """What the plan says a training step holds, and what the card's allocator has had at most; nothing without a card."""
    if device.type != "cuda":
        return
    x, y = images(size, torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "noise.safetensors"
        save_file({"x": x, "y": y, "x_test": x[:100].clone(), "y_test": y[:100].clone()}, file)
        plan = anarch_core.plan(
            data=f"tensors:{file}", model="vanilla-cnn", relax="efcn,lcn", control="none", switch="at:0", epochs=1, branch_epochs=1,
            batch_size=size.batch, device="cuda:0", timed=False, options={"vanilla-cnn": {"channels": size.channels}},
        )  # fmt: skip
    rows = []
    for network in plan.networks:
        name = {"constrained": "cnn"}.get(network.footprint.name, network.footprint.name)
        predicted = network.footprint.training.held
        for capture in ("off", "auto"):
            loop = training(vanilla(name, size, device), (x.to(device), y.to(device)), size.batch, "float32", capture)
            torch.cuda.empty_cache()
            data = loop.x.nbytes + loop.y.nbytes
            loop.advance(3)  # what it is captured by takes more
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
            loop.advance(loop.iterations_per_epoch)
            taken = torch.cuda.max_memory_reserved(device) - data
            del loop
            how = "captured" if capture == "auto" else "not captured"
            rows.append((f"{name}, {how}", *(f"{number / 1e6:,.0f} MB" for number in (predicted, taken))))
            torch.cuda.empty_cache()
    yield Table("memory of training, without the data", ("", "planned", "taken"), rows)


CASES = {"steps": steps, "eigenvalue": eigenvalue, "memory": memory, "siblings": siblings}


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--small", action="store_true", help="networks and numbers small enough for a processor")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="write every table here")
    arguments = parser.parse_args(given)
    if unknown := [name for name in arguments.cases if name not in CASES]:
        parser.error(f"no case {unknown[0]!r}; there are {', '.join(CASES)}")
    device = torch.device(arguments.device)
    what = torch.cuda.get_device_name(device) if device.type == "cuda" else "no card: the processor"
    print(f"PyTorch {torch.__version__}, {what}\n", flush=True)
    found: dict[str, list[dict[str, object]]] = {}
    for name in arguments.cases or CASES:
        for table in CASES[name](device, SMALL if arguments.small else Size()):
            print(table.markdown(), end="\n\n", flush=True)
            found.setdefault(name, []).append(attrs.asdict(table))
            if arguments.json:
                arguments.json.write_text(json.dumps({"torch": torch.__version__, "device": what, "tables": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
