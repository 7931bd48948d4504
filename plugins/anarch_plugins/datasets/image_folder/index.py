"""Which images a folder of class folders holds. Reads none of them."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import attrs

from anarch_core.errors import DataError

EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Names of images end so, in small or capital letters; those that torchvision's ``ImageFolder`` takes."""


@attrs.frozen
class Index:
    """What was found.

    Attributes:
        folder: where.
        classes: names of the class folders, sorted; hidden ones are none.
        samples: path and number of the class of each image, class by class, in the order that torchvision's ``ImageFolder`` has.
    """

    folder: Path
    classes: tuple[str, ...]
    samples: tuple[tuple[Path, int], ...]

    @classmethod
    def of(cls, folder: Path) -> Index:
        """Look through a folder.

        Warns of files that are left out because their names do not end as those of images do.

        Raises:
            DataError: there is no such folder, no class folder in it, or one without images; or folders contain themselves by a link.
        """
        if not folder.is_dir():
            msg = f"there is no folder {str(folder)!r}; image-folder needs train/ and test/ (or val/), each with one folder per class"
            raise DataError(msg)
        try:
            classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
        except OSError as error:
            msg = f"cannot look into the folder {str(folder)!r}: {error.strerror}"
            raise DataError(msg) from error
        if not classes:
            msg = f"no classes in {str(folder)!r}: expected a folder of images for each class"
            raise DataError(msg)
        samples: list[tuple[Path, int]] = []
        others: list[Path] = []
        for number, name in enumerate(classes):
            found = _files(folder / name)
            images = [path for path in found if path.suffix.lower() in EXTENSIONS]
            if not images:
                msg = f"no images in the class folder {str(folder / name)!r}: expected files that end in {', '.join(EXTENSIONS)}"
                raise DataError(msg)
            samples += [(path, number) for path in images]
            others += [path for path in found if path.suffix.lower() not in EXTENSIONS and not path.name.startswith(".")]
        if others:
            warnings.warn(
                f"{len(others)} files under {str(folder)!r} are left out, {str(others[0])!r} the first of them: names of images end in "
                f"{', '.join(EXTENSIONS)}",
                UserWarning,
                stacklevel=2,
            )
        return cls(folder, tuple(classes), tuple(samples))


def _files(folder: Path) -> list[Path]:
    """All files in a folder and those below it, folders sorted by their paths; links are followed."""

    def refuse(error: OSError) -> None:
        msg = f"cannot look into the folder {error.filename!r}: {error.strerror}"
        raise DataError(msg) from error

    above = {os.path.realpath(folder): {os.path.realpath(folder), os.path.realpath(folder.parent)}}
    found: list[tuple[str, list[str]]] = []
    for here, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        around = above[os.path.realpath(here)]
        for name in folders:
            below = os.path.realpath(Path(here, name))
            if below in around:
                msg = f"the link {str(Path(here, name))!r} leads back to a folder that it lies in; remove it"
                raise DataError(msg)
            above[below] = around | {below}
        found.append((here, sorted(files)))
    return [Path(here, name) for here, files in sorted(found) for name in files]
