"""In what PyTorch takes products of float32: exactly, or with factors rounded to TF32, or to less; and how that is put back.

PyTorch has three settings of it: a word for all (``set_float32_matmul_precision``), flags for cards (``allow_tf32``), and since 2.9 one for
each library (``fp32_precision``). They write into each other, not always back, and where they disagree reading the first two is an error.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import torch


def _libraries() -> tuple[Any, ...]:
    """On a card and on a processor; none before PyTorch 2.9."""
    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        return ()
    backends: Any = torch.backends
    return backends.cuda.matmul, backends.mkldnn.matmul, backends.cudnn.conv, backends.cudnn.rnn


@attrs.frozen
class Float32Products:
    """The settings of PyTorch.

    Attributes:
        word: for all products; None where it disagrees with what libraries are set to.
        convolutions: whether those on a card may round their factors; None likewise.
        libraries: what each library is set to.
    """

    word: str | None
    convolutions: bool | None
    libraries: tuple[str, ...]

    @classmethod
    def found(cls) -> Float32Products:
        """As they are."""
        word = convolutions = None
        with contextlib.suppress(RuntimeError):
            word = torch.get_float32_matmul_precision()
        with contextlib.suppress(RuntimeError):
            convolutions = torch.backends.cudnn.allow_tf32
        return cls(word, convolutions, tuple(library.fp32_precision for library in _libraries()))

    def put_back(self) -> None:
        """Let them be as they were found."""
        torch.set_float32_matmul_precision(self.word or "highest")
        torch.backends.cudnn.allow_tf32 = bool(self.convolutions)
        for library, precision in zip(_libraries(), self.libraries, strict=True):
            if library.fp32_precision != precision:
                library.fp32_precision = precision


@contextmanager
def float32_products(*, tf32: bool) -> Iterator[None]:
    """Inside, products and convolutions of float32 are exact, or in TF32 on a card; afterwards, what they were."""
    found = Float32Products.found()
    torch.set_float32_matmul_precision("highest")
    if tf32:
        torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        found.put_back()
