"""Several processes that run one function in step, as those do that hold a network together."""

from __future__ import annotations

import atexit
import functools
import importlib.util
import multiprocessing
import sys
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from anarch_core.sharding.joining import joined

PATIENCE = 120.0
"""Seconds that a function may take, or a process wait for another."""

TO_FAIL_TOO = 10.0
"""Seconds that the others may take where a function has raised in one process."""


def together(processes: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What a function gives in each of several processes that run it in step, the first first.

    The processes are kept for the next call, each with one thread.

    Args:
        processes: how many, P.
        function: of a module; called with a :class:`~anarch_core.sharding.shards.Shards`, then the arguments.
        arguments: can be pickled, and so can what is given.

    Raises:
        RuntimeError: it raises in one of them, or one of them is gone.
    """
    return _team(processes).call(function, arguments)


@functools.cache
def _team(processes: int) -> _Team:
    return _Team(processes)


class _Team:
    """Processes that wait for functions."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._folder = tempfile.TemporaryDirectory()
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch"])
        pairs = [context.Pipe() for _ in range(size)]
        self._lines = [ours for ours, _ in pairs]
        meeting = f"{self._folder.name}/meeting"
        self._processes = [
            context.Process(target=_serve, args=(theirs, rank, size, meeting), daemon=True) for rank, (_, theirs) in enumerate(pairs)
        ]
        for process in self._processes:
            process.start()
        for _, theirs in pairs:
            theirs.close()
        atexit.register(self.end)

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> list[Any]:
        for line in self._lines:
            line.send((function.__code__.co_filename, function.__module__, function.__qualname__, arguments))
        found: dict[int, Any] = {}
        failed: str | None = None
        while len(found) < self._size:
            waiting = [line for rank, line in enumerate(self._lines) if rank not in found]
            ready = wait(waiting, timeout=PATIENCE if failed is None else TO_FAIL_TOO)
            for rank in [rank for rank, line in enumerate(self._lines) if line in ready]:
                try:
                    fine, found[rank] = self._lines[rank].recv()
                except (EOFError, OSError):
                    self.end()
                    fine, found[rank] = False, "it is gone"
                failed = failed or (None if fine else f"process {rank} of {self._size}: {found[rank]}")
            if not ready:
                self.end()  # they wait for one another
                failed = failed or "nothing came back"
                break
        if failed is not None:
            raise RuntimeError(failed)
        return [found[rank] for rank in range(self._size)]

    def end(self) -> None:
        """End the processes; the next call makes new ones."""
        _team.cache_clear()
        atexit.unregister(self.end)
        for process in self._processes:
            process.kill()
            process.join()
        self._folder.cleanup()


def _serve(line: Connection, rank: int, size: int, meeting: str) -> None:
    """Run what comes down the line."""
    torch.set_num_threads(1)
    with joined(rank, size, meeting, "cpu", PATIENCE) as shards:
        while True:
            try:
                file, module, name, arguments = line.recv()
            except (EOFError, OSError):
                return
            try:
                function: Any = loaded(file, module)
                for part in name.split("."):
                    function = getattr(function, part)
                line.send((True, function(shards, *arguments)))
            except BaseException:
                line.send((False, traceback.format_exc()))


def loaded(file: str, module: str) -> ModuleType:
    """A module by its name where it is there already, else by its file, as that of a test is found.

    Args:
        file: of the module.
        module: its name.

    Raises:
        ImportError: the file is no module.
    """
    if module in sys.modules:
        return sys.modules[module]
    spec = importlib.util.spec_from_file_location(module, Path(file))
    if spec is None or spec.loader is None:
        msg = f"{file} cannot be loaded"
        raise ImportError(msg)
    made = sys.modules[module] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made
