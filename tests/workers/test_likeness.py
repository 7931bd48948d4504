"""Who may work for a run: those to whom it means the same."""

from importlib.metadata import version

import attrs
import pytest

from anarch_core.plugin.discovery import PluginRecord, Status
from anarch_core.plugin.records import ObserverInfo, ProbeInfo
from anarch_core.plugin.registry import Registry, get_registry
from anarch_core.workers.likeness import differences, versions

OURS = {"Python": "3.11", "torch": "2.14.1", "plugin 'norms'": "norms 1.0"}


@pytest.mark.parametrize(
    ("theirs", "why"),
    [
        (OURS, None),
        ({**OURS, "plugin 'other'": "other 3.0"}, None),
        ({**OURS, "torch": "2.13.0"}, "has torch 2.13.0, the run was begun with 2.14.1"),
        ({**OURS, "torch": "none"}, "has torch none, the run was begun with 2.14.1"),
        (
            {**OURS, "plugin 'norms'": "anarch-norms 1.1"},
            "has plugin 'norms' of anarch-norms 1.1, the run was begun with that of norms 1.0",
        ),
        ({"Python": "3.12"}, "has Python 3.12, the run was begun with 3.11; has no torch; has no plugin 'norms' (norms 1.0)"),
    ],
)
def test_what_differs_is_said(theirs, why):
    assert differences(OURS, theirs) == why


def registry():
    """The installed plugins, and two of somebody else's."""

    def plugin(name, info):
        return PluginRecord(name=name, module="m", distribution=f"anarch-{name}", version="1.0", status=Status.LOADED, components=(info,))

    norms = plugin("norms", ProbeInfo(name="norms", summary="s", target="m:f"))
    page = plugin("page", ObserverInfo(name="page", summary="s", target="m:f"))
    broken = PluginRecord(name="broken", module="m", distribution="d", version="1", status=Status.BROKEN)
    return Registry((*get_registry().plugins, norms, page, broken))


def test_versions_count_and_of_plugins_those_of_others_that_can_be_used():
    found = versions(registry=registry())
    assert found["anarch"] == version("anarch")
    assert found["torch"] == version("torch").partition("+")[0]
    assert {name for name in found if name.startswith("plugin")} == {"plugin 'norms'", "plugin 'page'"}


def test_of_a_run_only_the_plugins_count_whose_components_train_and_measure(small):
    assert not [name for name in versions(small(), registry()) if name.startswith("plugin")]
    wanted = attrs.evolve(small(), probe=("norms", "delta"), observe=("page",))
    assert [name for name in versions(wanted, registry()) if name.startswith("plugin")] == ["plugin 'norms'"]
