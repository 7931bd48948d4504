"""What the records of relaxations say, against the classes that they name."""

from __future__ import annotations

from anarch_core.plugin.registry import get_registry
from anarch_core.relaxation import AbstractLatticeRelaxation


def test_the_members_of_the_lattice_say_so():
    registry = get_registry()
    built_in = {info.name: info for info in registry.infos("relaxation") if registry.plugin_of(info).distribution == "anarch"}
    made = {name: registry.create("relaxation", name) for name in built_in}
    assert {name for name, info in built_in.items() if info.lattice} == {
        name for name, relaxation in made.items() if isinstance(relaxation, AbstractLatticeRelaxation)
    }
