"""Taking a run directory: its lock, what was left in it, and the files that say what is run and where."""

from __future__ import annotations

import contextlib
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from anarch_core.cards import cards
from anarch_core.config.files import to_toml
from anarch_core.config.resolution import recorded
from anarch_core.config.run_config import RunConfig
from anarch_core.errors import AnarchError, ConfigError, RunError
from anarch_core.experiment.owing import Asked, asked_probes
from anarch_core.experiment.placement import trained_elsewhere
from anarch_core.experiment.store import RunStore
from anarch_core.files.leftovers import remove_leftovers
from anarch_core.files.locks import LOCK
from anarch_core.files.replacing import write_text
from anarch_core.files.tables import read_table, write_json

if TYPE_CHECKING:
    from anarch_core.experiment.context import RunContext
    from anarch_core.plugin.registry import Registry

CHAINED = "chained"
"""Of the record of a run's machine."""

LONGEST = 200
"""Characters of a value that a message shows."""


@contextlib.contextmanager
def taken(store: RunStore) -> Iterator[None]:
    """Hold the lock of a run directory; one in which no run began, or went on, is left as it was found.

    Raises:
        RunError: another process holds it.
    """
    lock = store.path / LOCK
    made = [folder for folder in (store.path, *store.path.parents) if not folder.exists()]
    strange, begun = not lock.exists(), _written(store.config_file)
    with store.lock():
        try:
            yield
        finally:
            if strange and _written(store.config_file) == begun:
                lock.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # something else is in it by now
                    for folder in made:
                        folder.rmdir()


def _written(path: Path) -> int | None:
    """When a file was written, in nanoseconds; None where there is none."""
    with contextlib.suppress(OSError):
        return path.stat().st_mtime_ns
    return None


def prepare(context: RunContext, before: RunConfig | None) -> None:
    """Write down what is run, and where.

    The configuration is first: a directory that has one is that of a run, wherever the process is killed. In a directory that grows, what
    only the former configuration says is noted before.

    Args:
        context: of the run.
        before: what the directory was asked last.

    Raises:
        ConfigError: the configuration would be read back as another one.
        RunError: the data are not those that the run began with.
    """
    from anarch_core.machine import machine_record

    config, store = context.config, context.store
    text = to_toml(config)
    require_readable(config, text, context.registry)
    digest = context.data.digest()
    begun = store.environment_file.exists()
    record = read_table(store.environment_file) if begun else {}
    if begun and record.get("data_sha256") != digest:
        msg = f"the data set {config.data!r} is not the one that {store.path} began with; choose another --out"
        raise RunError(msg)
    remove_leftovers(store.path, below=False)
    if before is not None and text != to_toml(before):
        note_options(store, asked_probes(before, context.registry))
    write_text(store.config_file, text)
    if begun and dict(context.chained) != record.get(CHAINED, {}):
        write_json(store.environment_file, {**record, CHAINED: dict(context.chained)})
    if not begun:
        samples = {"train": len(context.data.y_train), "test": len(context.data.y_test)}
        device = str(context.device) if trained_elsewhere(config, context.registry) else config.device
        where = machine_record(device, [place.name for place in cards(device)])
        record = {"run": secrets.token_hex(6), **where, "data_sha256": digest, "samples": samples, CHAINED: dict(context.chained)}
        write_json(store.environment_file, record)


def chained_before(store: RunStore) -> dict[str, bool]:
    """What was decided about the chains of networks when the run began, see :attr:`~anarch_core.experiment.context.RunContext.chained`."""
    found = read_table(store.environment_file).get(CHAINED) if store.environment_file.exists() else None
    return {str(network): bool(taken) for network, taken in found.items()} if isinstance(found, dict) else {}


def note_options(store: RunStore, probes: Asked) -> None:
    """Note in results of earlier versions, which did not, with what options their probes measured."""
    for file in store.path.glob("segments/*/result.json"):
        files = store.segment(file.parent.name)
        with contextlib.suppress(AnarchError, OSError):  # what is damaged is found when it is taken
            result, noted = files.finished()
            if noted is None or noted.probes is None:
                left = store.stock(result, noted)
                files.finish(result, attrs.evolve(left, probes={name: probes[name] for name in probes if name in result.by_probe}))


def require_readable(config: RunConfig, text: str, registry: Registry) -> None:
    """Refuse a configuration that reads back as another one, so that going on with the run would be another run.

    Args:
        config: the configuration.
        text: what would be written.
        registry: where components are looked up.

    Raises:
        ConfigError: naming the settings.
    """
    advice = "the run could not be resumed; write that setting in another way"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.toml"
        try:
            file.write_text(text, encoding="utf-8")
            found = recorded(file, registry)
        except (AnarchError, UnicodeEncodeError) as error:
            reason = str(error).replace(str(file), file.name)
            msg = f"the configuration would not be read back from the run directory: {reason}; {advice}"
            raise ConfigError(msg) from error
    for name in (field.name for field in attrs.fields(RunConfig)):
        meant, read = getattr(config, name), getattr(found, name)
        if meant != read:
            msg = f"{name} = {_short(meant)} would be read back from the run directory as {_short(read)}, and {advice}"
            raise ConfigError(msg)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST else text[:LONGEST] + " ..."
