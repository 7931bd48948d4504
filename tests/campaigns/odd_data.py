"""Data of one's own that are not what they are taken for: files of tensors, folders of images, official files, and data made in Python."""

from __future__ import annotations

import itertools
import os
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from campaign import Campaign, Try
from command import here
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from torch import nn

from anarch_core.data import TensorData, load_data
from anarch_core.errors import AnarchError, DataError
from anarch_core.paths.interpolation import interpolate

Held = Callable[[Path], None]
QUICK = ("--model", "cnn1d", "--epochs", "1", "--control", "none", "--jobs", "1", "--threads", "1", "--device", "cpu")


def _loaded(name: str, root: Path, **options: Any) -> tuple[TensorData | None, str]:
    """The data set, or None, and what was said."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            return load_data(name, root=root, options=options), "; ".join(str(warning.message) for warning in told)
        except AnarchError as error:
            said = str(error)
    assert len(said) < 1000, f"{len(said)} characters"
    return None, said


def _refused(name: str, root: Path, pattern: str, **options: Any) -> None:
    data, said = _loaded(name, root, **options)
    assert data is None, f"read in silence: {said}"
    assert re.search(pattern, said), f"{pattern!r} not in: {said}"


def _told(name: str, root: Path, pattern: str) -> None:
    data, said = _loaded(name, root)
    assert re.search(pattern, said), f"{pattern!r} not in: {said or data}"


# --- tensors


def _numbers(random: Random, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(random.randrange(2**31))
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.randint(0, 128, shape, generator=generator).to(dtype)


def _tensors(pattern: str, **tensors: torch.Tensor) -> Held:
    def held(folder: Path) -> None:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "d.safetensors")
        _told("tensors:d.safetensors", folder, pattern)

    return held


def _odd_tensors(random: Random) -> Iterator[Try]:
    """A file of each kind that is misread, or no data."""
    n, height, width = random.randrange(20, 40), random.randrange(8, 40), random.randrange(8, 40)
    dtype = random.choice([torch.uint8, torch.float32, torch.float16, torch.int64])
    x, y = _numbers(random, n, 3, height, width, dtype=dtype), torch.arange(n) % 4
    last = x.movedim(1, -1)
    yield Try(f"images {tuple(last.shape)} of {dtype}", _tensors("channels that come last", x=last, y=y))
    square = _numbers(random, n, height, height, dtype=dtype)
    yield Try(f"images {tuple(square.shape)} of {dtype}", _tensors("without an axis of channels", x=square, y=y))
    yield Try("labels from 1", _tensors("counted from 1", x=x, y=y + 1))
    yield Try("labels that are one-hot", _tensors("one-hot", x=x, y=torch.eye(4)[y]))
    yield Try("labels that are floats", _tensors("float32", x=x, y=y.float()))
    yield Try("labels for every pixel", _tensors("segmentation", x=x, y=_numbers(random, n, height, width, dtype=torch.int64)))
    yield Try("labels that are booleans", _tensors("bool", x=x, y=y > 1))
    yield Try("labels of -1 and 1", _tensors("from -1", x=x, y=2 * (y % 2) - 1))
    spoilt = _numbers(random, n, 3, height, width)
    spoilt.view(-1)[random.randrange(spoilt.numel())] = random.choice([torch.nan, torch.inf, -torch.inf])
    yield Try("a number that is not finite", _tensors("not finite", x=spoilt, y=y))
    wide = _numbers(random, n, 3, height, width, dtype=torch.float64)
    wide[0, 0, 0, 0] = 1e300
    yield Try("a number that float32 does not have", _tensors("not finite", x=wide, y=y))
    yield Try("fewer labels than inputs", _tensors("equally many", x=x, y=y[:-1]))
    yield Try("more labels than inputs", _tensors("equally many", x=x, y=torch.cat([y, y])))
    yield Try("nothing", _tensors("expected", x=x[:0], y=y[:0]))
    yield Try("nothing to test on", _tensors("x_test is", x=x, y=y, x_test=x[:0], y_test=y[:0]))
    yield Try("images without pixels", _tensors("expected", x=x[:, :, :0], y=y))
    yield Try("one number alone", _tensors("expected", x=torch.tensor(1.0), y=torch.tensor(1)))
    yield Try(
        "8-bit images as floats",
        _tensors("not? ?normalised|are normalised", x=_numbers(random, n, 3, 9, 9, dtype=torch.uint8).float(), y=y),
    )
    test = {"x_test": x[:5].clone(), "y_test": torch.full((5,), 7)}
    yield Try("classes that are only tested", _tensors("no sample: 7", x=x, y=y, **test))
    yield Try("a class that nobody has", _tensors("without training samples: 3", x=x, y=torch.where(y == 3, 4, y)))
    yield Try("a test part of other images", _tensors("training inputs are", x=x, y=y, x_test=x[:, :, 1:].clone(), y_test=y.clone()))
    other = {torch.uint8: torch.float32}.get(dtype, torch.uint8)
    yield Try("a test part of another type", _tensors("type|finite", x=x, y=y, x_test=x.to(other).contiguous(), y_test=y.clone()))
    yield Try("a class for every sample and more", _tensors("with only", x=x, y=y * 10**6))
    yield Try("one class", _tensors("1 class", x=x, y=y * 0))
    yield Try("complex inputs", _tensors("complex", x=torch.complex(x.float(), x.float()), y=y))
    yield Try("boolean inputs", _tensors("bool", x=x > 0, y=y))
    damage = random.choice(["cut", "flip", "empty", "text"])
    yield Try(f"a file that is damaged: {damage}", _damaged_tensors(random.randrange(2**31), damage))


def _damaged(content: bytes, damage: str, random: Random) -> bytes:
    if damage == "cut":
        return content[: random.randrange(len(content))]
    if damage == "flip":
        spoilt = bytearray(content)
        for _ in range(random.randrange(1, 20)):
            spoilt[random.randrange(len(spoilt))] ^= 1 << random.randrange(8)
        return bytes(spoilt)
    return b"" if damage == "empty" else b"this is no such file\n"


def _damaged_tensors(seed: int, damage: str) -> Held:
    def held(folder: Path) -> None:
        random = Random(seed)
        path = folder / "d.safetensors"
        save_file({"x": _numbers(random, 20, 1, 8), "y": torch.arange(20) % 2}, path)
        path.write_bytes(_damaged(path.read_bytes(), damage, random))
        data, said = _loaded("tensors:d.safetensors", folder)
        assert data is not None or "d.safetensors" in said or "'tensors'" in said, said

    return held


# --- folders of images


def _folder(folder: Path, random: Random) -> Path:
    """Two classes of three images; what is returned may be replaced."""
    for part, name, number in itertools.product(("train", "test"), ("a", "b"), range(3)):
        path = folder / part / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (80 if name == "a" else 200, random.randrange(256), 10 * number)).save(path)
    return folder / random.choice(["train", "test"]) / "b" / "1.png"


def _image(random_seed: int, replace: Callable[[Path, Random], None], pattern: str | None) -> Held:
    """One image is replaced; it is refused by its name and these words, or for None read or refused by its name."""

    def held(folder: Path) -> None:
        random = Random(random_seed)
        path = _folder(folder, random)
        path.unlink()
        replace(path, random)
        if pattern is not None:
            _refused("image-folder:8", folder, f"b/1.*{pattern}|{pattern}.*b/1")
            return
        data, said = _loaded("image-folder:8", folder)
        assert data is not None or "/b/1" in said, said

    return held


def _saved(mode: str, kind: str) -> Callable[[Path, Random], None]:
    def replace(path: Path, random: Random) -> None:
        Image.new("L", (9, 7), random.randrange(256)).convert("RGB").convert(mode).save(path, kind)

    return replace


def _spoilt(kind: str, damage: str) -> Callable[[Path, Random], None]:
    def replace(path: Path, random: Random) -> None:
        image = Image.new("RGB", (40, 30))
        ImageDraw.Draw(image).ellipse((3, 3, 30, 20), fill=(random.randrange(256), 7, 90))
        image.save(path, kind)
        path.write_bytes(_damaged(path.read_bytes(), damage, random))

    return replace


def _deep(folder: Path) -> None:
    for part, name, number in itertools.product(("train", "test"), ("a", "b"), range(2)):
        path = folder / part / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 1000 + 200 * number + 10 * (name == "b"), dtype=np.uint16)).save(path)
    data, said = _loaded("image-folder:8", folder)
    assert data is not None, said
    assert len({float(image[0, 0, 0]) for image in data.x_train}) == 4, "greys of 16 bits became equal"


def _bomb(path: Path, random: Random) -> None:
    """A file of a kilobyte that says it is an image of 10^10 pixels."""
    Image.new("1", (8, 8)).save(path)
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 100_000, 100_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(bytes(content))


def _big(path: Path, random: Random) -> None:
    Image.new("1", (12_000, 10_000)).save(path)


def _animated(path: Path, random: Random) -> None:
    Image.new("L", (8, 8)).save(path, "GIF", save_all=True, append_images=[Image.new("L", (8, 8), 255)])


def _turned(path: Path, random: Random) -> None:
    exif = Image.Exif()
    exif[0x0112] = random.choice([0, 2, 6, 8, 9, 255])
    Image.new("RGB", (8, 4)).save(path, exif=exif)


def _tree(change: Callable[[Path], None], pattern: str) -> Held:
    def held(folder: Path) -> None:
        _folder(folder, Random(0))
        change(folder)
        _told("image-folder:8", folder, pattern)

    return held


def _emptied(folder: Path) -> None:
    for path in (folder / "train" / "b").iterdir():
        path.unlink()


def _odd_images(random: Random) -> Iterator[Try]:
    seed = random.randrange(2**31)
    yield Try("greys of 16 bits", _deep)
    yield Try("a decompression bomb", _image(seed, _bomb, "pixels"))
    yield Try(
        "a link to the folder above", _tree(lambda folder: (folder / "train" / "b" / "up").symlink_to(folder / "train"), "up' leads back")
    )
    yield Try(
        "a link to itself", _tree(lambda folder: (folder / "train" / "b" / "me").symlink_to(folder / "train" / "b"), "me' leads back")
    )
    yield Try("a pipe", _image(seed, lambda path, _: os.mkfifo(path), "no regular file"))
    yield Try("a link to nothing", _image(seed, lambda path, _: path.symlink_to("nowhere.png"), "broken link"))
    yield Try("a folder", _tree(lambda folder: (folder / "train" / "b" / "x.png").mkdir(), "^$"))
    yield Try("an empty class folder", _tree(_emptied, "no images in the class folder '.*train/b'"))
    yield Try(
        "a class that is only trained", _tree(lambda folder: (folder / "test" / "b").rename(folder / "test" / "c"), "only one has b, c")
    )
    yield Try(
        "files that are no images", _tree(lambda folder: (folder / "train" / "b" / "x.gif").write_text("x"), "x.gif' the first of them")
    )
    yield Try("a hidden folder", _tree(lambda folder: (folder / "train" / ".x").mkdir(), "^$"))
    for mode in ("I", "F"):
        yield Try(f"an image of mode {mode}", _image(seed, _saved(mode, "TIFF"), "what is white"))
    for mode, kind in (("1", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("RGBA", "PNG"), ("CMYK", "JPEG"), ("YCbCr", "TIFF"), ("LAB", "TIFF")):
        yield Try(f"an image of mode {mode}", _image(seed, _saved(mode, kind), None))
    yield Try("a large image", _image(seed, _big, "pixels"))
    yield Try("an animation", _image(seed, _animated, None))
    yield Try("an image that is turned", _image(seed, _turned, None))
    for kind in ("PNG", "JPEG", "BMP", "TIFF", "GIF", "WEBP", "PPM"):
        for damage in ("cut", "flip"):
            yield Try(f"a {kind} that is damaged: {damage}", _image(random.randrange(2**31), _spoilt(kind, damage), None))
    yield Try("an empty file", _image(seed, _spoilt("PNG", "empty"), "cannot"))
    yield Try("a text", _image(seed, _spoilt("PNG", "text"), "cannot"))


# --- official files


def _odd_files(random: Random) -> Iterator[Try]:
    for damage in ("cut", "flip", "empty", "text"):
        yield Try(f"a file of MNIST that is damaged: {damage}", _mnist(random.randrange(2**31), damage))


def _mnist(seed: int, damage: str) -> Held:
    def held(folder: Path) -> None:
        random = Random(seed)
        raw = folder / "MNIST" / "raw"
        raw.mkdir(parents=True)
        for prefix, count in (("train", 12), ("t10k", 5)):
            (raw / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, count, 28, 28) + random.randbytes(count * 784))
            labels = bytes(number % 10 for number in range(count))
            (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + labels)
        path = random.choice(sorted(raw.iterdir()))
        content = path.read_bytes()
        head = content[:64] if damage == "flip" else content
        path.write_bytes(_damaged(head, damage, random) + content[len(head) :])
        data, said = _loaded("mnist", folder)
        assert data is not None or "'mnist'" in said, said

    return held


# --- data made in Python


def _odd_python(random: Random) -> Iterator[Try]:
    x, y = _numbers(random, 12, 1, 6), torch.arange(12) % 3
    rubbish = [None, [1, 2], "x", 7, x.long(), x[:5], x[0], x.to_sparse(), torch.complex(x, x), x / 0, y.float(), y - 1, y + 1, y[:0]]
    rubbish += [y.int(), torch.eye(3)[y], y[:, None], y[:, None, None].expand(12, 4, 4), x.to("meta"), np.zeros(12), torch.zeros(12, 0, 6)]
    fields = ("x_train", "y_train", "x_test", "y_test", "x_validation", "y_validation", "classes", "class_names")
    for field in random.sample(fields, 4):
        value = random.choice(rubbish)
        yield Try(f"{field} is {type(value).__name__} {tuple(getattr(value, 'shape', ()))}", _python(x, y, field, value))


def _python(x: torch.Tensor, y: torch.Tensor, field: str, value: Any) -> Held:
    def held(folder: Path) -> None:
        given: dict[str, Any] = {"name": "d", "x_train": x, "y_train": y, "x_test": x, "y_test": y, "classes": 3, field: value}
        network = nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))
        try:
            profile = interpolate(network, network, TensorData(**given), points=3)
        except DataError:
            return
        assert all(0 <= score.accuracy <= 100 for score in profile.test), profile.test

    return held


def _by_command(random: Random) -> Iterator[Try]:
    def held(folder: Path) -> None:
        save_file({"x": _numbers(random, 20, 16, 16, 3), "y": torch.arange(20) % 2}, folder / "d.safetensors")
        here("plan", "--data", "tensors:d.safetensors", *QUICK, folder=folder).refused("d.safetensors", "--tensors-layout channels-last")
        here("plan", "--data", "tensors:d.safetensors", "--tensors-layout", "channels-last", *QUICK, folder=folder).told()

    yield Try("plan with images whose channels come last", held)


def tries(random: Random) -> Iterator[Try]:
    """One of each kind, round after round."""
    while True:
        kinds = [_odd_tensors(random), _odd_images(random), _odd_files(random), _odd_python(random), _by_command(random)]
        for several in itertools.zip_longest(*kinds):
            yield from filter(None, several)


CAMPAIGN = Campaign(
    promise="data that are not what they are taken for are refused, or told of, by the name of what is wrong",
    tries=tries,
    count=1500,
    in_suite=70,
    limit=20,
)
