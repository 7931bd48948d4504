"""How processes that train one segment together find each other."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch.distributed as dist

from anarch_core.sharding.shards import Shards, told

TIMEOUT = 300.0
"""Seconds that a process waits for the others, which are in step with it but for the writing of files, before it gives them up."""


@contextmanager
def joined(rank: int, size: int, meeting: str, device: str, timeout: float = TIMEOUT) -> Iterator[Shards]:
    """This process as one of several of this machine, which it meets at a place.

    Args:
        rank: its number.
        size: how many there are.
        meeting: path of a file that is not there yet, the same for all.
        device: on which each computes; what is on cards goes from card to card (NCCL), all else through the host's memory (gloo).
        timeout: seconds that it waits for the others, now and in every step.

    Raises:
        LostProcessError: the others did not come.
    """
    loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
    if loopback is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    with told():
        dist.init_process_group(
            backend_of(device), init_method=f"file://{meeting}", rank=rank, world_size=size, timeout=timedelta(seconds=timeout)
        )
    try:
        yield Shards()
    finally:
        dist.destroy_process_group()


def backend_of(device: str) -> str:
    """What carries tensors between processes that compute on a device."""
    return "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
