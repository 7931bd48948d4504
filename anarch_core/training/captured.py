"""Whole training steps, captured on the device once and replayed from then on: one call of the host in place of one for every kernel.

A captured step reads its batch, its learning rate and its weights where they lie on the device, and everything that the host decides is in
it as it was. So it is trusted only once it has been seen to do what an ordinary step does: before a step of a size is replayed, a few are
taken both ways and put back. The training that follows has seen nothing of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from torch import nn

from anarch_core.errors import ConfigError, plain
from anarch_core.machine import available_bytes
from anarch_core.ops.fused import is_watched
from anarch_core.training.graphs import AbstractGraphs, Play
from anarch_core.training.trial import Live, NotCapturedError, Trial

Batch = tuple[torch.Tensor, torch.Tensor | None]
"""The rows of its samples, and its inputs where they are not to be gathered by them."""

RATES = (1.0, 0.5, 0.75)
"""Learning rates of the steps that are taken both ways, of the one that is due: a captured step has to follow it."""

ROOM = 1.0
"""Memory that is left free on the device beside captured steps, of what this process has there: for what is measured between epochs."""


@attrs.frozen(eq=False)
class _Recorded:
    """A captured step of batches of one size, with the tensors that it reads its batch from."""

    rows: torch.Tensor
    inputs: torch.Tensor | None
    play: Play

    def __call__(self, rows: torch.Tensor, inputs: torch.Tensor | None) -> None:
        self.rows.copy_(rows)
        if self.inputs is not None and inputs is not None:
            self.inputs.copy_(inputs)
        self.play()


class Captured:
    """The captured steps of a stretch of training, one for each size of batches.

    Args:
        graphs: records on the device.
        step: an ordinary step.
        model: that is trained, all of it on one device.
        optimizer: of its parameters, which has taken a step.
        live: all tensors that a step changes, by name, where they lie.
        host: what a step may change that is not on the device, as data that can be compared.
        like: how far two ways of taking a step may be apart, see :class:`~anarch_core.training.trial.Trial`.
        samples: in the training set.
        hindrance: what of the training cannot be captured, if that is known.
        must: whether it is an error where steps cannot be captured.

    Attributes:
        refused: why steps are not captured; None as long as they are.
        replayed: steps that were.
    """

    def __init__(
        self,
        *,
        graphs: AbstractGraphs,
        step: Callable[[torch.Tensor, torch.Tensor | None], None],
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        live: Live,
        host: Callable[[], Any],
        like: float,
        samples: int,
        hindrance: str | None = None,
        must: bool = False,
    ) -> None:
        self.refused: str | None = None
        self.replayed = 0
        self._graphs, self._step, self._model, self._optimizer = graphs, step, model, optimizer
        self._live, self._host, self._like, self._samples = live, host, like, samples
        self._hindrance, self._must = hindrance, must
        self._device = next(model.parameters()).device
        self._rates = [torch.zeros((), dtype=torch.float32, device=self._device) for _ in optimizer.param_groups]
        self._told: list[float | None] = [None] * len(self._rates)
        self._recorded: dict[int, _Recorded] = {}
        self._places: list[int] = []

    def take(self, rows: torch.Tensor, inputs: torch.Tensor | None) -> bool:
        """Take a step by what was captured; False where it is to be taken as usual.

        Raises:
            ConfigError: it cannot be captured, and has to be.
        """
        if self.refused is not None:
            return False
        recorded = self._recorded.get(len(rows))
        if recorded is None:
            try:
                with warnings.catch_warnings():  # of PyTorch, that what is tried here is a prototype, or not captured yet
                    warnings.simplefilter("ignore")
                    recorded = self._recorded[len(rows)] = self._tried(rows, inputs)
            except Exception as error:  # whatever it is, an ordinary step does without
                self.refused = _reason(error)
                self.drop()
                if self._must:
                    msg = f"capture 'on': {self.refused}; use capture auto, or off"
                    raise ConfigError(msg) from error
                return False
        self._tell([group["lr"] for group in self._optimizer.param_groups])
        recorded(rows, inputs)
        self.replayed += 1
        return True

    def look(self) -> None:
        """Capture anew where tensors lie elsewhere by now: between epochs, others have the network."""
        if self._recorded and self._places != self._where():
            self.drop()

    def _where(self) -> list[int]:
        return [tensor.data_ptr() for tensor in self._live().values()]

    def drop(self) -> None:
        """Give back the memory of captured steps; the next one is captured again."""
        if not self._recorded:
            return
        self._recorded.clear()
        self._optimizer.zero_grad()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _tried(self, *batch: Any) -> _Recorded:
        """A captured step that was seen to do as an ordinary one.

        Raises:
            NotCapturedError: there is none.
        """
        self._refuse()
        groups = self._optimizer.param_groups
        rates = [group["lr"] for group in groups]
        steps = [([rate * part for rate in rates], self._another(batch, number)) for number, part in enumerate(RATES)]
        trial = Trial(self._live, self._model, self._optimizer, self._device, self._like)
        with trial.put_back():
            decided = self._host()
            with self._graphs.aside(waits=True):
                for wanted, each in steps:
                    for group, rate in zip(groups, wanted, strict=True):
                        group["lr"] = rate
                    self._step(*each)
            if self._host() != decided:
                msg = "its optimizer counts on the host what changes from step to step"
                raise NotCapturedError(msg)
            trial.keep()
        with trial.put_back():
            with self._graphs.aside(waits=False), self._rates_on_the_device():
                for wanted, each in steps:
                    self._tell(wanted)
                    self._step(*each)
            trial.require_repeated()
        with trial.put_back(), self._rates_on_the_device():
            self._optimizer.zero_grad()
            rows, inputs = batch[0].clone(), None if batch[1] is None else batch[1].clone()
            recorded = _Recorded(rows, inputs, self._graphs.record(lambda: self._step(rows, inputs)))
        with trial.put_back():
            for wanted, each in steps:
                self._tell(wanted)
                recorded(*each)
            trial.require_alike()
        del trial
        self._require_room()
        self._places = self._where()
        return recorded

    def _refuse(self) -> None:
        if self._hindrance is not None:
            raise NotCapturedError(self._hindrance)
        if any(parameter.dtype == torch.float64 for parameter in self._model.parameters()):
            msg = "fused optimizers take no learning rate from the device for weights of float64"
            raise NotCapturedError(msg)
        refuse_what_is_watched(self._model, self._optimizer)
        self._require_room(2 * sum(tensor.nbytes for tensor in self._live().values()))

    def _another(self, batch: Batch, number: int) -> Batch:
        """A batch of the same size that is another one but for number 0."""
        rows, inputs = batch
        return (rows + number) % self._samples, None if inputs is None else inputs * (1.0 + 0.25 * number)

    @contextmanager
    def _rates_on_the_device(self) -> Iterator[None]:
        """Inside, an ordinary step reads its learning rates from the device, and keeps nothing elsewhere, as far as it can."""
        groups: list[dict[str, Any]] = self._optimizer.param_groups
        found: list[dict[str, Any]] = [{name: group[name] for name in ("lr", "capturable") if name in group} for group in groups]
        try:
            for group, rate in zip(groups, self._rates, strict=True):
                group.update({"lr": rate, **({"capturable": True} if "capturable" in group else {})})
            yield
        finally:
            for group, settings in zip(groups, found, strict=True):
                group.update(settings)

    def _tell(self, rates: Sequence[float]) -> None:
        """Tell the device the learning rates of the next step, where they are others than those it knows."""
        for number, rate in enumerate(rates):
            if self._told[number] != rate:
                self._rates[number].fill_(rate)
                self._told[number] = rate

    def _require_room(self, needed: int = 0) -> None:
        """Refuse to take memory that the measurements between epochs may need."""
        if self._device.type != "cuda":
            return
        if available_bytes(self._device) < needed + ROOM * torch.cuda.memory_allocated(self._device):
            msg = "too little memory is free on the device to keep that of a step"
            raise NotCapturedError(msg)


def refuse_what_is_watched(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Hooks are functions of Python, which no captured step would call; those that only decide what is computed are captured.

    Raises:
        NotCapturedError: there are any, naming the module or the parameter.
    """
    for path, module in model.named_modules():
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
        if not all(_computes(hook) for each in hooks for hook in each.values()):
            msg = f"a hook is on module {path!r}, which a captured step would not call"
            raise NotCapturedError(msg)
    for name, parameter in model.named_parameters():
        if is_watched(parameter):
            msg = f"a hook is on parameter {name!r}, which a captured step would not call"
            raise NotCapturedError(msg)
    if optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        msg = f"a hook is on the optimizer {type(optimizer).__name__}, which a captured step would not call"
        raise NotCapturedError(msg)


def _computes(hook: Callable[..., Any]) -> bool:
    """Whether a hook only decides what is computed: PyTorch's own of pruning and weight normalisation, and those of relaxed layers."""
    return str(getattr(hook, "__module__", "")).startswith(("torch.nn.utils.", "anarch_core."))


def _reason(error: BaseException) -> str:
    """What went wrong first, in a line: of what follows from it CUDA says less."""
    while error.__context__ is not None and "captur" in str(error) and not isinstance(error, NotCapturedError):
        error = error.__context__
    text = str(error).strip() or type(error).__name__
    return plain(text.splitlines()[0], 200)
