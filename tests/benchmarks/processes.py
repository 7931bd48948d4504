"""Work that is divided among processes, each of one thread, which take a step of theirs whenever all are asked for one."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from typing import Any

import torch
from measure import Step


def in_processes(make: Callable[..., Step], arguments: Iterable[tuple[Any, ...]]) -> Step:
    """A step of all processes.

    Args:
        make: builds the step of a process there.
        arguments: of each, for ``make``.
    """
    context = multiprocessing.get_context("spawn")
    pipes = []
    for own in arguments:
        here, there = context.Pipe()
        context.Process(target=_serve, args=(there, make, own), daemon=True).start()
        there.close()
        pipes.append(here)

    def step() -> None:
        for pipe in pipes:
            pipe.send(True)
        for pipe in pipes:
            pipe.recv()

    return step


def _serve(pipe: Connection, make: Callable[..., Step], arguments: tuple[Any, ...]) -> None:
    """Take steps as long as somebody asks for them."""
    torch.set_num_threads(1)
    step = make(*arguments)
    try:
        while pipe.recv():
            step()
            pipe.send(True)
    except (EOFError, ConnectionError):
        return
