"""Options of the model ``rnn1d``."""

from __future__ import annotations

from typing import Literal

import attrs

from anarch_core.plugin import between, opt


@attrs.frozen(kw_only=True)
class Rnn1dOptions:
    """The cell, and what it is given at each step."""

    cell: Literal["rnn", "gru", "lstm"] = attrs.field(default="rnn", metadata=opt("nn.RNNCell, nn.GRUCell or nn.LSTMCell."))
    hidden: int = attrs.field(default=50, validator=between(1, 10_000), metadata=opt("Numbers that the cell hands on."))
    patch: int = attrs.field(
        default=5, validator=between(1, 100_000), metadata=opt("Pixels of the signal that are read at a step; the length is a multiple.")
    )
