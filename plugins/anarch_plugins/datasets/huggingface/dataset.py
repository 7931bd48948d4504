"""Data sets of Hugging Face as tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from anarch_core.data import Meaning, TensorData, gathered
from anarch_core.errors import DataError, MissingDependencyError
from anarch_plugins.datasets.huggingface.options import HuggingFaceOptions

SAVED = ("dataset_dict.json", "state.json")
"""Files of a folder that ``save_to_disk`` wrote."""


def load(root: Path | None, options: HuggingFaceOptions) -> TensorData:
    """Read a data set of a local folder, or of the hub, which is downloaded once.

    Images become 8-bit tensors, normalised by the training part; class names are those of the label column. No code of a data set is run.

    Args:
        root: where the relative path of a folder starts; the working directory if None.
        options: which data set, its splits and columns.

    Raises:
        DataError: it cannot be read, has no such splits or columns, or its samples are unlike each other.
        MissingDependencyError: the package ``datasets`` is not there.
    """
    library = _library()
    folder = (root or Path()).expanduser() / Path(options.path).expanduser()
    where = f"data {options.path!r}"
    try:
        with _without_progress(library):
            if any((folder / name).is_file() for name in SAVED):
                found = library.load_from_disk(str(folder))
            else:
                found = library.load_dataset(str(folder) if folder.is_dir() else options.path, options.config)
    except Exception as error:  # of files, connections and the library itself
        what = f"in the folder {str(folder)!r}" if folder.is_dir() else f"there is no folder {str(folder)!r}, and on the hub"
        msg = f"{where}: {what} no data set could be read: {' '.join(str(error).split())[:300] or type(error).__name__}"
        raise DataError(msg) from error
    meaning = Meaning.of(where, "--huggingface-", options)
    return gathered("huggingface", _parts(where, found, options), meaning=meaning, x=options.image, y=options.label)


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        msg = f"the data set huggingface needs the package datasets ({error}); pip install 'anarch[huggingface]'"
        raise MissingDependencyError(msg) from error
    return datasets


@contextmanager
def _without_progress(library: Any) -> Iterator[None]:
    shown = not library.are_progress_bars_disabled()
    library.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            library.enable_progress_bars()


def _parts(where: str, found: Any, options: HuggingFaceOptions) -> dict[str, Any]:
    """The splits by the names of the parts that they become."""
    splits: Mapping[str, Any] = found if isinstance(found, Mapping) else {options.train: found}
    test = options.test or next((name for name in ("test", "validation") if name in splits and name != options.train), None)
    wanted = {"train": options.train, "test": test, "validation": "validation" if "validation" in splits else None}
    if wanted["validation"] in (test, options.train):
        wanted["validation"] = None
    for part, split in wanted.items():
        if split is not None and split not in splits:
            msg = f"{where} has no split {split!r} (it has {', '.join(splits)}); choose one: --huggingface-{part} NAME"
            raise DataError(msg)
    columns = splits[options.train].column_names
    for option, column in (("image", options.image), ("label", options.label)):
        if column is not None and column not in columns:
            msg = f"{where} has no column {column!r} (it has {', '.join(columns)}); choose one: --huggingface-{option} NAME"
            raise DataError(msg)
    return {part: splits[split] for part, split in wanted.items() if split is not None}
