"""Checkpoints that are damaged, that abuse their header, or that describe what they do not hold, given to every command that reads one."""

from __future__ import annotations

import functools
import json
import os
import resource
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

from campaign import Campaign, Try
from code_in_files import on_checkpoint
from hostile_run import checkpoint, rewritten, table

COMMANDS = ("inspect", "relax", "project", "probe", "interpolate")
SECONDS = 4.0
"""That a refusal may take; it takes a few hundredths, but the machine may have other work."""
MEGABYTES = 250


def refused(command: str, file: Path, folder: Path, *words: str) -> None:
    """A command refuses a file soon, in one line, with little memory."""
    prepared(command)
    begun, before = time.process_time(), _peak()
    ended = on_checkpoint(command, file, folder)
    taken, more = time.process_time() - begun, _peak() - before
    ended.refused(*words)
    assert len(ended.err.strip().splitlines()) == 1, f"several lines: {ended.err}"
    assert "delete" not in ended.err, f"advises to delete: {ended.err}"
    assert taken < SECONDS, f"it took {taken:.1f} s"
    assert more < MEGABYTES, f"it took {more:.0f} MB"


@functools.cache
def prepared(command: str) -> None:
    """What a command imports once is imported now, so that it is not counted."""
    with tempfile.TemporaryDirectory() as folder:
        on_checkpoint(command, checkpoint(), Path(folder)).done()


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def mutated(command: str, seed: int) -> Try:
    """A checkpoint with a few bytes changed, cut out, repeated or moved."""

    def held(folder: Path) -> None:
        random = Random(seed)
        data = bytearray(checkpoint().read_bytes())
        header = 8 + int.from_bytes(data[:8], "little")
        before = bytes(data)
        for _ in range(random.choice((1, 1, 2, 5))):
            at = random.randrange(min(random.choice((8, header, len(data))), len(data)))
            how = random.randrange(5)
            if how == 0:
                data[at] ^= 1 << random.randrange(8)
            elif how == 1:
                del data[at : at + random.randrange(1, 40)]
            elif how == 2:
                data[at:at] = data[at : at + random.randrange(1, 40)]
            elif how == 3:
                data[at : at + 1] = random.choice((b"0", b"9", b'"', b"}", b"[", b"-", b"\\", b"\x00", b"\xff"))
            else:
                del data[random.randrange(len(data)) :]
                data.append(0)
        file = folder / "a.safetensors"
        file.write_bytes(data)
        if bytes(data) == before or command == "inspect":
            on_checkpoint(command, file, folder).told()
        else:
            refused(command, file, folder, "a.safetensors")

    return Try(f"anarch {command} of a checkpoint mutated with seed {seed}", held)


def headed(name: str, header: bytes | Callable[[], bytes], data: bytes, command: str, *words: str, length: int | None = None) -> Try:
    """A file with a header of any kind."""

    def held(folder: Path) -> None:
        text = header() if callable(header) else header
        file = folder / "a.safetensors"
        file.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
        refused(command, file, folder, "a.safetensors", *words)

    return Try(f"anarch {command} of a file with {name}", held)


def entries(**tensors: tuple[str, list[Any], list[Any]]) -> bytes:
    """A header."""
    rows = {name: {"dtype": dtype, "shape": shape, "data_offsets": offsets} for name, (dtype, shape, offsets) in tensors.items()}
    return json.dumps(rows).encode()


def many(count: int) -> bytes:
    """A header of so many tensors with nothing in them."""
    row = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    return ("{" + ",".join(f'"t{index}":{row}' for index in range(count)) + "}").encode()


HEADERS: list[tuple[str, bytes | Callable[[], bytes], bytes, tuple[str, ...]]] = [
    ("95 MB of nested lists", lambda: b'{"a":' + b"[" * 47_500_000 + b"]" * 47_500_000 + b"}", b"", ()),
    ("30 MB of nested lists", lambda: b'{"a":' + b"[" * 15_000_000 + b"]" * 15_000_000 + b"}", b"", ()),
    ("30 MB of empty lists", lambda: b'{"a":[' + b"[]," * 10_000_000 + b"0]}", b"", ()),
    ("30 MB of one string", lambda: b'{"__metadata__":{"a":"' + b"x" * 30_000_000 + b'"},"a":3}', b"", ()),
    ("30 MB of quotation marks", lambda: b'{"a' + b'\\"' * 15_000_000, b"", ()),
    ("10,000 levels", b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}", b"", ()),
    ("a million tensors", lambda: many(1_000_000), b"", ()),
    ("100,000 tensors", lambda: many(100_000), b"", ("more than",)),
    ("a shape whose product overflows", entries(a=("F32", [2**62, 2**62], [0, 4])), bytes(4), ()),
    ("a shape with nothing in it that overflows", entries(a=("F32", [2**62, 2**62, 0], [0, 0])), b"", ()),
    ("100,000 dimensions", entries(a=("F32", [2**62] * 100_000, [0, 4])), bytes(4), ()),
    ("sizes of 4,000 digits", entries(a=("F32", [10**4000], [0, 4])), bytes(4), ()),
    ("a size below zero", entries(a=("F32", [-1], [0, 4])), bytes(4), ()),
    ("a size that is true", entries(a=("F32", [True], [0, 4])), bytes(4), ()),
    ("offsets below zero", entries(a=("F32", [1], [-4, 0])), bytes(4), ()),
    ("offsets beyond the end", entries(a=("F32", [1], [2**40, 2**40 + 4])), bytes(4), ()),
    ("offsets the wrong way round", entries(a=("F32", [1], [4, 0])), bytes(4), ()),
    ("overlapping tensors", entries(a=("F32", [1], [0, 4]), b=("F32", [1], [0, 4])), bytes(4), ()),
    ("a hole", entries(a=("F32", [1], [0, 4]), b=("F32", [1], [8, 12])), bytes(12), ()),
    ("bytes after the last tensor", entries(a=("F32", [1], [0, 4])), bytes(8), ()),
    ("a name twice", entries(a=("F32", [1], [0, 4]))[:-1] + b"," + entries(a=("F32", [1], [0, 4]))[1:], bytes(4), ("twice",)),
    ("half a character", b'{"\\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4), ()),
    ("a nan", b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}', bytes(4), ()),
    ("an unknown type", entries(a=("F128", [1], [0, 16])), bytes(16), ("not known",)),
    ("a list as type", b'{"a":{"dtype":["F32"],"shape":[1],"data_offsets":[0,4]}}', bytes(4), ()),
    ("no schema", b'{"__metadata__":{"anarch.kind":"base-model"}}', b"", ("anarch.schema",)),
    ("no header", b"", b"", ()),
    ("a list", b"[]", b"", ()),
    ("an entry that is a number", b'{"a":3}', b"", ()),
    ("metadata that are numbers", b'{"__metadata__":{"a":1}}', b"", ()),
]

LENGTHS = (0, 1, 2**31, 2**62, 2**64 - 1)


def unlike(kind: str, command: str) -> Try:
    """Something else in the place of the file."""

    def held(folder: Path) -> None:
        file = folder / "a.safetensors"
        if kind == "pipe":
            os.mkfifo(file)
        elif kind == "folder":
            file.mkdir()
        elif kind == "socket":
            where = os.open(folder, os.O_RDONLY)  # the name of a socket is short
            socket.socket(socket.AF_UNIX).bind(f"/proc/self/fd/{where}/a.safetensors")
            os.close(where)
        elif kind == "loop":
            file.symlink_to(file)
        elif kind == "empty":
            file.touch()
        else:
            file = Path(kind)
        refused(command, file, folder, file.name)

    return Try(f"anarch {command} of {kind}", held)


def described(name: str, change: Callable[[dict[str, str]], Any], command: str) -> Try:
    """A checkpoint whose description is not what anarch wrote; its digests fit."""

    def held(folder: Path) -> None:
        file = rewritten(checkpoint(), folder / "a.safetensors", lambda metadata: change(metadata) and None)
        if command == "inspect":
            on_checkpoint(command, file, folder).told()
        else:
            refused(command, file, folder, "a.safetensors")

    return Try(f"anarch {command} of a checkpoint with {name}", held)


def model(**changes: Any) -> Callable[[dict[str, str]], None]:
    """Changes the record of the model."""
    return lambda metadata: table(metadata, "anarch.model", lambda record: record.update(changes))


def relaxation(**changes: Any) -> Callable[[dict[str, str]], None]:
    """Changes the record of the relaxation."""
    return lambda metadata: table(metadata, "anarch.relaxations", lambda records: records[0].update(changes))


def layers(shape: Callable[[list[int]], list[int]]) -> Callable[[dict[str, str]], None]:
    """Changes the shapes of the relaxed layers' inputs."""

    def change(records: Any) -> None:
        records[0]["layers"] = {path: shape(old) for path, old in records[0]["layers"].items()}

    return lambda metadata: table(metadata, "anarch.relaxations", change)


def metadata_of(**values: str) -> Callable[[dict[str, str]], None]:
    """Replaces metadata."""
    return lambda metadata: metadata.update({f"anarch.{key}": text for key, text in values.items()})


IMAGES = {"input_shape": [3, 224, 224], "classes": 1000}
DESCRIPTIONS: Mapping[str, Callable[[dict[str, str]], None]] = {
    "30,000 channels": model(options={"channels": 30_000}),
    "3,000 channels": model(options={"channels": 3_000}),
    "inputs of 9000 x 9000": model(name="vanilla-cnn", input_shape=[3, 9000, 9000], options={}),
    "inputs of 2000 x 2000": model(name="vanilla-cnn", input_shape=[3, 2000, 2000], options={}),
    "signals of nine million": model(input_shape=[1, 9_000_000]),
    "a vision transformer of 600 million": model(name="torchvision", options={"model": "vit_h_14"}, **IMAGES),
    "a RegNet of 600 million": model(name="torchvision", options={"model": "regnet_y_128gf"}, **IMAGES),
    "a VGG": model(name="torchvision", options={"model": "vgg16"}, **IMAGES),
    "a thousand million classes": model(classes=10**9),
    "no classes": model(classes=0),
    "classes below zero": model(classes=-3),
    "a size of zero": model(input_shape=[1, 0]),
    "sizes of 300 digits": model(input_shape=[1, 10**300]),
    "no input shape": model(input_shape=[]),
    "an input shape that is a number": model(input_shape=16),
    "options that are a list": model(options=[1]),
    "a name that is a number": model(name=5),
    "a name that nobody knows": model(name="\x1b[31mno such model"),
    "relaxed layers of a large input": layers(lambda shape: [shape[0], 100_000]),
    "relaxed layers of a huge input": layers(lambda shape: [shape[0], 2**40]),
    "relaxed layers of no input": layers(lambda shape: [shape[0], 0]),
    "relaxed layers of an input of one dimension more": layers(lambda shape: [*shape, 4]),
    "relaxed layers that are a number": relaxation(layers=7),
    "a hundred thousand relaxed layers": relaxation(layers={f"features.{index}": [1, 16] for index in range(100_000)}),
    "a relaxation to the largest family": relaxation(name="efcn"),
    "a relaxation that is not installed": relaxation(name="gone", distribution="nobody", version="1"),
    "no relaxation": metadata_of(relaxations="[]"),
    "the relaxation 1,000 times": lambda metadata: table(metadata, "anarch.relaxations", lambda records: records.extend(records * 999)),
    "relaxations that are 30 MB of lists": metadata_of(relaxations="[" + "[]," * 8_000_000 + "0]"),
    "a model of 10,000 levels": metadata_of(model="[" * 10_000 + "]" * 10_000),
    "no step": metadata_of(step='{"iteration":0,"iterations_per_epoch":0}'),
    "an infinite step": metadata_of(step='{"iteration":1e400,"iterations_per_epoch":1}'),
    "more lifted than there are": metadata_of(lifted="5"),
    "an infinite number lifted": metadata_of(lifted="1e400"),
    "lifted layers that are stored": metadata_of(kind="delta", lifted="1"),
    "another schema": metadata_of(schema="2.0"),
    "a schema that is none": metadata_of(schema="x" * 5_000),
    "an unknown kind": metadata_of(kind="\x1b[2Jother"),
    "ties to what is not there": metadata_of(tied='{"a":"b"}'),
}


def tries(random: Random) -> Iterator[Try]:
    """What was found first, then all headers and descriptions with a command each, then mutations without end."""
    yield headed(*HEADERS[2][:3], "inspect")
    yield described("30,000 channels", DESCRIPTIONS["30,000 channels"], "project")
    yield described("inputs of 9000 x 9000", DESCRIPTIONS["inputs of 9000 x 9000"], "relax")
    yield unlike("pipe", "inspect")
    yield described("no step", DESCRIPTIONS["no step"], "inspect")
    for seed in range(5):
        yield mutated(random.choice(COMMANDS), seed)
    for name, header, data, words in HEADERS:
        yield headed(name, header, data, random.choice(COMMANDS), *words)
    for length in LENGTHS:
        yield headed(f"a length of {length}", b"{}", b"", random.choice(COMMANDS), length=length)
    for kind in ("pipe", "folder", "socket", "loop", "empty", "/dev/zero", "/dev/null", "/proc/self/mem"):
        yield unlike(kind, random.choice(COMMANDS))
    for name, change in DESCRIPTIONS.items():
        yield described(name, change, random.choice(COMMANDS[1:]))
        yield described(name, change, "inspect")
    while True:
        yield mutated(random.choice(COMMANDS), random.randrange(2**32))


CAMPAIGN = Campaign(
    promise="a checkpoint that is not what anarch wrote is refused in one line, soon and with little memory",
    tries=tries,
    count=400,
    in_suite=8,
    limit=30,
)
