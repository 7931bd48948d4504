"""Another machine makes certain that it can work for a run before it does."""

from __future__ import annotations

import pytest

from anarch_core.errors import ConfigError, OutOfMemoryError, RunError
from anarch_core.experiment.context import RunContext
from anarch_core.experiment.store import RunStore
from anarch_core.files.tables import read_table, write_json
from anarch_core.planning.need import Need
from anarch_core.plugin.registry import get_registry
from anarch_core.running.preparation import prepare
from anarch_core.segment.stopping import Stop
from anarch_core.workers import open_elsewhere, versions

NEED = Need(peak_bytes=2**20, work="training", model_bytes=2**10)


@pytest.fixture
def begun(small, tmp_path):
    config, store = small(switch="at:0"), RunStore(tmp_path / "run")
    prepare(RunContext.open(config, store, get_registry()), None)
    return config, store


def test_what_is_alike_opens_to_the_same(begun):
    config, store = begun
    context = open_elsewhere(config, store, Stop(), NEED, versions(config))
    assert context.config == config
    assert context.data.digest() == read_table(store.environment_file)["data_sha256"]


def test_other_packages_are_told(begun):
    config, store = begun
    with pytest.raises(RunError, match=r"has torch .*, the run was begun with 1\.0; let all machines use the same environment"):
        open_elsewhere(config, store, Stop(), NEED, {**versions(config), "torch": "1.0"})


def test_too_little_memory_is_told(begun):
    config, store = begun
    with pytest.raises(OutOfMemoryError, match="training needs"):
        open_elsewhere(config, store, Stop(), Need(peak_bytes=2**60, work="training", model_bytes=1), versions(config))


def test_other_data_are_told(begun):
    config, store = begun
    write_json(store.environment_file, {**read_table(store.environment_file), "data_sha256": "0"})
    with pytest.raises(RunError, match="is another one here than the one that the run began with"):
        open_elsewhere(config, store, Stop(), NEED, versions(config))


def test_a_device_that_is_not_there_is_told(begun):
    import attrs

    config, store = begun
    with pytest.raises(ConfigError, match="is not there"):
        open_elsewhere(attrs.evolve(config, device="cuda:99"), store, Stop(), NEED, versions(config))
