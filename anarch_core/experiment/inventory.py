"""What a segment has left on disk, noted when it was whole, so that damage to it is seen later."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import attrs

from anarch_core.checkpoint.file import read_header, verify
from anarch_core.checkpoint.schema import METADATA_DIGEST, TENSORS_DIGEST
from anarch_core.errors import CheckpointError, RunError
from anarch_core.experiment.record import Record
from anarch_core.files.reading import kind, reading

READ_WHOLE = 64 * 2**20
"""Bytes up to which a file is always read whole. That takes a second per GB or so: a longer one, of the size and time that were noted, is
believed by its header alone, unless a network is about to be started from it."""


@attrs.frozen(kw_only=True)
class Noted(Record):
    """A file as it was.

    Attributes:
        bytes: its size.
        modified: when it was written, in nanoseconds.
        digest: SHA-256 of the content; of a safetensors file the digest in its header, which stands for all of it.
    """

    bytes: int
    modified: int
    digest: str

    @classmethod
    def of(cls, path: Path) -> Noted:
        """Note a file that was just written.

        Raises:
            AnarchError: it cannot be read.
            OSError: likewise.
        """
        found = path.lstat()
        return cls(bytes=found.st_size, modified=found.st_mtime_ns, digest=_digest(path, found.st_size, whole=False))


@attrs.frozen(kw_only=True)
class Inventory(Record):
    """What a segment has left.

    Attributes:
        files: by path below the segment's folder.
        parent: digest of the tensors of the snapshot that it started from; None for a fresh network.
        probes: by probe that measured, those of its options that differ from their defaults; None where an earlier version noted none.
    """

    later: ClassVar[Sequence[str]] = ("probes",)
    files: Mapping[str, Noted]
    parent: str | None
    probes: Mapping[str, Mapping[str, Any]] | None = None

    @classmethod
    def of(cls, folder: Path, paths: Iterable[Path], parent: str | None, probes: Mapping[str, Mapping[str, Any]] | None) -> Inventory:
        """Note those of the files in a folder that are there.

        Raises:
            AnarchError: one cannot be read.
            OSError: likewise.
        """
        names = sorted(path.relative_to(folder).as_posix() for path in paths if path.exists())
        return cls(files={name: Noted.of(folder / name) for name in names}, parent=parent, probes=probes)

    def with_files(self, paths: Iterable[Path], folder: Path) -> Inventory:
        """With those of the files in a folder that are there, too."""
        more = Inventory.of(folder, paths, None, None).files
        return attrs.evolve(self, files=dict(sorted({**self.files, **more}.items())))

    def without_files(self, paths: Iterable[Path], folder: Path) -> Inventory:
        """Without some files in a folder."""
        names = {path.relative_to(folder).as_posix() for path in paths}
        return attrs.evolve(self, files={name: noted for name, noted in self.files.items() if name not in names})

    def damage(self, folder: Path, *, growing: str | None = None) -> dict[str, str]:
        """What is wrong with the files, in a few words by name.

        Args:
            folder: where they are.
            growing: name of one that more may have been appended to.
        """
        found = {name: damage(folder / name, noted, growing=name == growing) for name, noted in self.files.items()}
        return {name: what for name, what in found.items() if what is not None}


def tensors_digest(path: Path) -> str | None:
    """The digest of the tensors in a checkpoint, as its header has it; None where there is no checkpoint.

    Raises:
        CheckpointError: the header is damaged.
    """
    return read_header(path).metadata.get(TENSORS_DIGEST) if path.exists() else None


def damage(path: Path, noted: Noted | None = None, *, whole: bool = False, growing: bool = False) -> str | None:
    """What is wrong with a file, in a few words; None if it is what was written.

    Args:
        path: the file.
        noted: how it was; None where that is not known. Then only what has a digest of its own, a safetensors file, can be judged.
        whole: whether to read all of it, however long it is.
        growing: whether more may have been appended to it.
    """
    try:
        found = path.lstat()
        other = kind(path)
        if other is not None:
            return f"is {other}"
        size = found.st_size
        if noted is not None and (size < noted.bytes or (size > noted.bytes and not growing)):
            return f"has {size:,} bytes, not {noted.bytes:,}"
        same = noted is not None and noted.modified == found.st_mtime_ns
        digest = _digest(path, size if noted is None else noted.bytes, whole=whole or size <= READ_WHOLE or not same)
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    except (CheckpointError, RunError):
        return "was altered"
    return "was altered" if noted is not None and digest != noted.digest else None


def _digest(path: Path, size: int, *, whole: bool) -> str:
    if path.suffix == ".safetensors":
        header = verify(path) if whole else read_header(path)
        return header.metadata.get(METADATA_DIGEST, "")
    with reading(path, follow=False) as file:
        return hashlib.sha256(file.read(size)).hexdigest()
