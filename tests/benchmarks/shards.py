"""VanillaCNN's eFCN held by several processes together, beside what PyTorch has for that: DDP and FSDP2, over gloo on one machine.

Batch 250 in all, float32, plain SGD. What is sent is what the kernel counts for the sockets of a process; peaks are of its resident memory
in three steps, beyond what it had before there was a network.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import socket
import statistics
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from measure import OURS, Step, Table
from torch import nn
from torch.nn import functional

import anarch_core
from anarch_core.ops.fused import fused_sgd
from anarch_core.sharding.joining import joined
from anarch_core.sharding.maps import gather, spread
from anarch_core.sharding.shards import Shards
from anarch_plugins.models.vanilla_cnn.model import build
from anarch_plugins.models.vanilla_cnn.options import VanillaCnnOptions

BATCH = 250
STEPS = 3
RATE = 0.01
SHAPE = (3, 32, 32)
BYTES_SENT = 200
"""Where the kernel's ``tcp_info`` has them."""

Way = Callable[[Shards | None], tuple[nn.Module, Step]]
"""Makes the network, and what takes a step with it."""


def network(shards: Shards | None) -> nn.Module:
    """The eFCN, or this process's part of it."""
    torch.manual_seed(0)
    cnn = build(SHAPE, 10, VanillaCnnOptions())
    return anarch_core.relax(cnn, "efcn", example_input=torch.zeros(2, *SHAPE), check=False, shards=shards).model


def data(samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise, and labels."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(samples, *SHAPE, generator=generator), torch.randint(10, (samples,), generator=generator)


def step_of(model: nn.Module, forward: Callable[[torch.Tensor], torch.Tensor], samples: int) -> Step:
    """Plain descent, in the backward pass where that can be."""
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    x, y = data(samples)

    def step() -> None:
        with fused_sgd(optimizer):
            optimizer.zero_grad()
            functional.cross_entropy(forward(x), y).backward()
            optimizer.step()

    return step


def ours(shards: Shards | None) -> tuple[nn.Module, Step]:
    """The whole in one process, or shared out."""
    model = network(shards)
    return model, step_of(model, model, BATCH)


def gathered_late(shards: Shards | None) -> tuple[nn.Module, Step]:
    """Shared out, and gathered after ReLU and pooling, which work channel by channel."""
    assert shards is not None
    model = network(shards)
    assert isinstance(model.features, nn.Sequential)
    layers = list(model.features)

    def forward(x: torch.Tensor) -> torch.Tensor:
        for place in range(0, len(layers), 3):
            layer, *channelwise = layers[place : place + 3]
            whole, part = layer.whole.out_channels, super(type(layer).__mro__[1], layer).forward(spread(x, shards))
            for module in channelwise:
                part = module(part)
            x = gather(part, shards, whole)
        out: torch.Tensor = model.classifier(x)
        return out

    return model, step_of(model, forward, BATCH)


def ddp(shards: Shards | None) -> tuple[nn.Module, Step]:
    """The whole in every process, each with a part of the batch."""
    assert shards is not None
    model = network(None)
    return model, step_of(model, nn.parallel.DistributedDataParallel(model), BATCH // shards.size)


def fsdp2(shards: Shards | None) -> tuple[nn.Module, Step]:
    """Rows of every weight in every process, which makes the whole of a layer when it is needed, each with a part of the batch."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    assert shards is not None
    model: Any = network(None)
    mesh = init_device_mesh("cpu", (shards.size,))
    for layer in model.features:
        if any(True for _ in layer.parameters()):
            fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model, step_of(model, model, BATCH // shards.size)


def held(model: nn.Module) -> int:
    """Bytes of the parameters that are in this process."""
    return sum(getattr(parameter, "_local_tensor", parameter).nbytes for parameter in model.parameters())


def sent() -> int:
    """Bytes that this process has sent over TCP so far."""
    total = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if str(entry.readlink()).startswith("socket:"):
                with socket.socket(fileno=os.dup(int(entry.name))) as found:
                    if found.family in (socket.AF_INET, socket.AF_INET6) and found.type == socket.SOCK_STREAM:
                        info = found.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, BYTES_SENT + 8)
                        total += struct.unpack_from("Q", info, BYTES_SENT)[0]
        except OSError:
            continue
    return total


def resident(what: str) -> float:
    """Memory of this process in MiB: ``VmRSS`` by now, ``VmHWM`` at its fullest."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def measured(way: Way, rank: int, size: int, meeting: str) -> dict[str, float]:
    """What a process has, takes and sends."""
    torch.set_num_threads(1)
    if size == 1:
        return _measured(way, None)
    with joined(rank, size, meeting, "cpu") as shards:
        return _measured(way, shards)


def _measured(way: Way, shards: Shards | None) -> dict[str, float]:
    functional.linear(torch.zeros(64, 64), torch.zeros(64, 64))  # what a product takes once
    before = resident("VmRSS")
    model, step = way(shards)
    step()
    Path("/proc/self/clear_refs").write_text("5")
    first, seconds = sent(), []
    for _ in range(STEPS):
        begun = time.monotonic()
        step()
        seconds.append(time.monotonic() - begun)
    own = 0 if shards is None else shards.sent / (STEPS + 1)
    counted = (sent() - first) / STEPS
    return {"held": held(model), "sent": counted, "said": own, "peak": resident("VmHWM") - before, "seconds": statistics.median(seconds)}


def together(way: Way, size: int) -> list[dict[str, float]]:
    """Of each process."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        pipes = []
        for rank in range(size):
            here, there = context.Pipe()
            context.Process(target=_serve, args=(there, way, rank, size, f"{folder}/meeting"), daemon=True).start()
            there.close()
            pipes.append(here)
        return [pipe.recv() for pipe in pipes]


def _serve(pipe: Connection, way: Way, rank: int, size: int, meeting: str) -> None:
    pipe.send(measured(way, rank, size, meeting))


WAYS: dict[str, tuple[Way, int]] = {
    f"{OURS}, 1 process": (ours, 1),
    f"{OURS}, --shards 2": (ours, 2),
    f"{OURS}, --shards 4": (ours, 4),
    "likewise, 2, gathered after ReLU and pooling": (gathered_late, 2),
    "DDP, 2": (ddp, 2),
    "FSDP2, 2": (fsdp2, 2),
}


def tables() -> Iterator[Table]:
    """Weights, peaks, bytes sent and time of a step, per process, the largest of them."""
    rows = []
    for name, (way, size) in WAYS.items():
        found = together(way, size)
        most = {key: max(one[key] for one in found) for key in found[0]}
        row = [most["held"] / 1e6, most["peak"], most["sent"] / 1e6, most["said"] / 1e6, most["seconds"] * 1e3]
        rows.append([name, *(f"{value:.1f}" if index != 2 else f"{value:.3f}" for index, value in enumerate(row))])
    columns = ["", "weights, MB", "peak, MiB", "sent a step, MB", "as reckoned, MB", "step, ms"]
    yield Table("VanillaCNN's eFCN, batch 250: per process", columns, rows)
