"""One image, as it is meant: its colours, the depth of its numbers, and which way is up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from anarch_core.errors import DataError

DEEP = 65535.0
"""White in an image of 16 bits."""

EIGHT_BITS = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
"""Modes of Pillow that have a meaning in 8-bit colours."""


def read_picture(path: Path, size: int) -> npt.NDArray[np.uint8] | npt.NDArray[np.float32]:
    """Read an image as red, green and blue, resized by bilinear interpolation over the area that a pixel covers.

    Grey, black-and-white, palette and CMYK images become colour images, transparency is left out, of an animation the first picture is
    taken, and an image is turned as its EXIF orientation says.

    Args:
        path: the file.
        size: height and width of the result.

    Returns:
        [3, size, size]; uint8 from 0 to 255, or float32 from 0 to 255 where the file has 16-bit greys.

    Raises:
        DataError: the file is no image, is damaged, has far too many pixels, or holds numbers of which nobody knows what white is.
    """
    if not path.is_file():
        msg = f"cannot read the image {str(path)!r}: it is a broken link, or no regular file"
        raise DataError(msg)
    try:
        with Image.open(path) as image:
            _refuse_bomb(path, image)
            deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
            if not deep and image.mode not in EIGHT_BITS:
                msg = f"cannot tell what is white in the image {str(path)!r}, of Pillow's mode {image.mode!r}; save it with 8 or 16 bits"
                raise DataError(msg)
            ImageOps.exif_transpose(image, in_place=True)
            if deep:
                # Pillow takes all above 255 for white where it makes 8-bit colours of it.
                grey = Image.fromarray(np.asarray(image).astype(np.float32) * np.float32(255 / DEEP))
                return np.broadcast_to(np.asarray(_resized(grey, size)), (3, size, size))
            return np.asarray(_resized(image.convert("RGB"), size)).transpose(2, 0, 1)
    except DataError:
        raise
    except Exception as error:  # decoders of damaged files raise what they like
        msg = f"cannot read the image {str(path)!r}: {' '.join(str(error).split())[:200] or type(error).__name__}"
        raise DataError(msg) from error


def _resized(image: Image.Image, size: int) -> Image.Image:
    return image.resize((size, size), Image.Resampling.BILINEAR)


def _refuse_bomb(path: Path, image: Image.Image) -> None:
    """Refuse an image that would fill the memory; Pillow only warns of one of up to twice as many pixels."""
    most = Image.MAX_IMAGE_PIXELS
    if most is not None and image.width * image.height > most:
        size = f"{image.width:,} x {image.height:,} pixels"
        msg = f"the image {str(path)!r} has {size}, expected at most {most:,} in all; make it smaller, or remove it"
        raise DataError(msg)
