"""What is set for a whole process and decides what is computed: looked at, and put back."""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakSet

import attrs
import numpy as np
import torch
from torch import overrides
from torch.nn.modules import module as modules
from torch.utils import _device as device
from torch.utils import _python_dispatch as dispatch

from anarch_core.float32_products import Float32Products


@attrs.frozen
class Setting:
    """Something of a process.

    Attributes:
        name: what it is called in a sentence.
        get: its value, which compares.
        put: sets it to a value; None where nothing can.
        by_imports: modules may well set it when they are imported, and expect it to stay; likewise :func:`others_at_work`.
    """

    name: str
    get: Callable[[], Any]
    put: Callable[[Any], object] | None
    by_imports: bool = False


@attrs.frozen(eq=False)
class Surroundings:
    """The settings of this process, and its random states, at one moment."""

    values: Mapping[str, Any]
    imported: int

    @classmethod
    def now(cls) -> Surroundings:
        """Look at all of them, which takes a tenth of a millisecond."""
        return cls({setting.name: setting.get() for setting in SETTINGS}, len(sys.modules))

    def changed(self) -> list[str]:
        """Names of those that are not what they were."""
        theirs = len(sys.modules) != self.imported or others_at_work()
        looked_at = [setting for setting in SETTINGS if not (setting.by_imports and theirs)]
        return [setting.name for setting in looked_at if setting.get() != self.values[setting.name]]

    def restore(self) -> tuple[list[str], list[str]]:
        """Put back what is not as it was.

        Returns:
            names of what was put back, and of what cannot be.
        """
        changed = self.changed()
        for setting in SETTINGS:
            if setting.name in changed and setting.put is not None:
                setting.put(self.values[setting.name])
        lost = self.changed() if changed else []
        return [name for name in changed if name not in lost], lost


_BESIDE: WeakSet[threading.Thread] = WeakSet()


def beside(thread: threading.Thread) -> None:
    """Note a thread that runs code of others, an observer's, which may set variables of the environment and start threads of its own."""
    _BESIDE.add(thread)


def others_at_work() -> bool:
    """Whether such a thread is running: what it does cannot be told from what the code does that is being looked at."""
    return any(thread.is_alive() for thread in _BESIDE)


def _flags(*homes: tuple[Any, Sequence[str]]) -> tuple[Callable[[], Any], Callable[[Any], None]]:
    """Getter and setter of attributes of objects, taken together; one that cannot be read at the moment is left alone."""

    def get() -> Any:
        return tuple(tuple(getattr(home, name, None) for name in names) for home, names in homes)

    def put(values: Any) -> None:
        for (home, names), found in zip(homes, values, strict=True):
            for name, value in zip(names, found, strict=True):
                if value is not None and getattr(home, name, None) != value:
                    setattr(home, name, value)

    return get, put


def _attention() -> dict[str, bool]:
    cuda = torch.backends.cuda
    return {name: getattr(cuda, f"{name}_sdp_enabled")() for name in ("flash", "mem_efficient", "math", "cudnn")}


def _put_attention(values: Mapping[str, bool]) -> None:
    for name, value in values.items():
        getattr(torch.backends.cuda, f"enable_{name}_sdp")(value)


def _devices() -> tuple[str, ...]:
    return ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)


def _autocast() -> tuple[Any, ...]:
    each = tuple((name, torch.is_autocast_enabled(name), torch.get_autocast_dtype(name)) for name in _devices())
    return torch.is_autocast_cache_enabled(), each


def _put_autocast(value: tuple[Any, ...]) -> None:
    cache, each = value
    torch.set_autocast_cache_enabled(cache)
    for name, enabled, dtype in each:
        torch.set_autocast_enabled(name, enabled)
        torch.set_autocast_dtype(name, dtype)


def _stack(
    get: Callable[[], Sequence[Any]], pop: Callable[[], Any], push: Callable[[Any], Any]
) -> tuple[Callable[[], Any], Callable[[Any], None]]:
    def put(before: Sequence[Any]) -> None:
        while get():
            pop()
        for mode in before:
            push(mode)

    return get, put


def _put_default_device(value: torch.device) -> None:
    torch.set_default_device(None)
    device.CURRENT_DEVICE = None
    if torch.get_default_device() != value and value.type != "cpu":
        torch.set_default_device(value)


def _hooks() -> dict[str, tuple[Any, ...]]:
    """Hooks on all modules of the process."""
    return {name: tuple(value.items()) for name, value in vars(modules).items() if name.startswith("_global_") and isinstance(value, dict)}


def _put_hooks(before: Mapping[str, Sequence[tuple[Any, Any]]]) -> None:
    for name, items in before.items():
        held = getattr(modules, name)
        held.clear()
        held.update(items)


_SIGNALS = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})


def _handlers() -> dict[int, Any]:
    return {number: signal.getsignal(number) for number in _SIGNALS}


def _put_handlers(before: Mapping[int, Any]) -> None:
    if threading.current_thread() is not threading.main_thread():
        return
    for number, handler in before.items():
        if handler is not None and signal.getsignal(number) != handler:
            signal.signal(number, handler)


def _put_filters(before: Sequence[Any]) -> None:
    warnings.filters[:] = before  # type: ignore[index]
    warnings._filters_mutated()  # type: ignore[attr-defined]


def _folder() -> Path | None:
    try:
        return Path.cwd()
    except FileNotFoundError:
        return None


def _put_folder(before: Path | None) -> None:
    if before is not None and before.is_dir():
        os.chdir(before)


def _put_environment(before: Mapping[str, str]) -> None:
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    for name, value in before.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def _numpy_state() -> tuple[Any, ...]:
    kind, keys, *rest = np.random.get_state()
    return kind, np.asarray(keys).tobytes(), *rest


def _put_numpy_state(value: tuple[Any, ...]) -> None:
    kind, keys, *rest = value
    np.random.set_state((kind, np.frombuffer(keys, dtype=np.uint32), *rest))


def _put_numpy_errors(value: Any) -> None:
    np.seterr(**value)


def _torch_states() -> tuple[bytes, ...]:
    states = [torch.get_rng_state()]
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states += torch.cuda.get_rng_state_all()
    return tuple(state.numpy().tobytes() for state in states)


def _put_torch_states(before: Sequence[bytes]) -> None:
    states = [torch.frombuffer(bytearray(state), dtype=torch.uint8) for state in before]
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state_all(states[1:])


def _put_output(value: tuple[Any, Any]) -> None:
    sys.stdout, sys.stderr = value


def _affinity() -> Any:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None


_CUDNN = (torch.backends.cudnn, ("enabled", "benchmark", "deterministic"))
_MATMUL = (torch.backends.cuda.matmul, ("allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction"))
_MKLDNN = (torch.backends.mkldnn, ("enabled",))

SETTINGS: Sequence[Setting] = (
    Setting("modes of dispatch", *_stack(dispatch._get_current_dispatch_mode_stack, dispatch._pop_mode, dispatch._push_mode)),
    Setting("default device", torch.get_default_device, _put_default_device),
    Setting("modes of functions", *_stack(overrides._get_current_function_mode_stack, overrides._pop_mode, overrides._push_mode)),
    Setting("default dtype", torch.get_default_dtype, torch.set_default_dtype),
    Setting("number of threads", torch.get_num_threads, torch.set_num_threads),
    Setting("gradient mode", torch.is_grad_enabled, torch._C._set_grad_enabled),
    Setting("inference mode", torch.is_inference_mode_enabled, None),
    Setting(
        "check for anomalies",
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda value: torch.autograd.set_detect_anomaly(*value),
    ),
    Setting("autocast", _autocast, _put_autocast),
    Setting("deterministic algorithms", torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    Setting("precision of products", Float32Products.found, Float32Products.put_back),
    Setting("flags of PyTorch's backends", *_flags(_CUDNN, _MATMUL, _MKLDNN)),
    Setting("kernels of attention", _attention, _put_attention),
    Setting("flushing of small numbers to zero", lambda: sys.float_info.min / 2 == 0.0, torch.set_flush_denormal),
    Setting("hooks on all modules", _hooks, _put_hooks),
    Setting("random state of Python", random.getstate, random.setstate),
    Setting("random state of numpy", _numpy_state, _put_numpy_state),
    Setting("random state of torch", _torch_states, _put_torch_states),
    Setting("handling of errors in numpy", np.geterr, _put_numpy_errors),
    Setting("filters of warnings", lambda: list(warnings.filters), _put_filters, by_imports=True),
    Setting("handlers of signals", _handlers, _put_handlers),
    Setting("working directory", _folder, _put_folder),
    Setting("environment variables", lambda: dict(os.environ), _put_environment, by_imports=True),
    Setting("standard output", lambda: (sys.stdout, sys.stderr), _put_output),
    Setting("limit of recursion", sys.getrecursionlimit, sys.setrecursionlimit),
    Setting("collection of garbage", gc.isenabled, lambda value: gc.enable() if value else gc.disable()),
    Setting("choice of processors", _affinity, lambda value: os.sched_setaffinity(0, value) if value is not None else None),
)
"""Everything that is looked at; modes first, because they are entered last and what follows would pass through them."""
