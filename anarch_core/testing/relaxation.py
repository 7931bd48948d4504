"""What a relaxation promises."""

from __future__ import annotations

import copy
from pathlib import Path

import torch

from anarch_core import load, save
from anarch_core.relaxation.verbs import relax
from anarch_core.testing.cases import apart, disturb
from anarch_core.testing.component import in_fresh_process
from anarch_core.testing.family import FamilyChecks
from anarch_core.testing.lift import LiftChecks
from anarch_core.testing.matrices import MatrixChecks
from anarch_core.testing.pieces import PieceChecks
from anarch_core.testing.tools import ToolChecks

_REBUILD = """
import sys
import torch
from anarch_core import load
folder = sys.argv[1]
torch.set_num_threads(int(sys.argv[2]))
base, given = torch.load(f"{folder}/base.pt", weights_only=False)
with torch.no_grad():
    torch.save(load(f"{folder}/relaxed.safetensors", model=base)(*given), f"{folder}/output.pt")
"""


class RelaxationConformance(LiftChecks, FamilyChecks, MatrixChecks, ToolChecks, PieceChecks):
    """Tests of a relaxation.

    Attributes:
        tolerance: relative error in float64 that is allowed; that of the record if None.
        dims: numbers of spatial dimensions of the generated convolutions.
        examples: how many convolutions each check generates.
        seed: which ones: the same every time, until you change it.
    """

    def test_checkpoint_in_a_fresh_process(self, tmp_path: Path) -> None:
        """A trained relaxed network, saved and loaded by another process, computes the same to the last bit."""
        case = self.parent()
        base = case.around()
        model = relax(base, self.name, example_input=case.given, options=dict(self.options), registry=self.registry).model
        disturb(model)
        save(model, tmp_path / "relaxed.safetensors")
        disturb(base)  # what is not in the file must not come from the network it is loaded into
        torch.save((base, case.given), tmp_path / "base.pt")
        in_fresh_process(_REBUILD, str(tmp_path), str(torch.get_num_threads()))
        output = torch.load(tmp_path / "output.pt")
        assert apart(output, model(*case.given)) == 0, (
            "the network that another process loads computes something else; hold all that is not rebuilt from the layer's sizes "
            "and the options in parameters or persistent buffers"
        )

    def test_checkpoint_of_a_fresh_lift(self, tmp_path: Path) -> None:
        """A network just relaxed can be stored as its parent, and the lift repeated when it is loaded."""
        case = self.parent()
        base = case.around()
        model = relax(base, self.name, example_input=case.given, options=dict(self.options), registry=self.registry).model
        save(model, tmp_path / "lift.safetensors", parent=base)
        again = load(tmp_path / "lift.safetensors", model=base, registry=self.registry)
        assert apart(again(*case.given), model(*case.given)) == 0, "the lift, repeated when a checkpoint is loaded, gives another network"

    def test_copies_are_independent(self) -> None:
        """A relaxed layer can be copied, and its state loaded into another one, strictly."""
        case, layer = self.lifted()
        disturb(layer)
        twin = copy.deepcopy(layer)
        assert apart(case.outputs(twin), case.outputs(layer)) == 0, "copy.deepcopy of the layer computes something else"
        _, other = self.lifted()
        other.load_state_dict(layer.state_dict())
        again = case.outputs(other)
        assert apart(again, case.outputs(layer)) == 0, "a layer that was given the state of another computes something else"
        disturb(twin)
        assert apart(case.outputs(layer), again) == 0, "copy.deepcopy of the layer shares memory with it"
