"""The schema of checkpoints: its number, and every key that anarch writes into a file's metadata.

What each of them means is told in ``docs/checkpoint_format.md``.
"""

from __future__ import annotations

SCHEMA = (1, 1)
"""A file of another first number is refused, one of a later second number is read."""

NAMESPACE = "anarch."
"""Of every key but ``format``."""

SCHEMA_KEY, CORE_VERSION, KIND = "anarch.schema", "anarch.core_version", "anarch.kind"

BASE, RELAXED, DELTA, PROBE_RESULT = "base-model", "relaxed-model", "delta", "probe-result"
"""Values of ``anarch.kind``."""

MODEL, RELAXATIONS, LIFTED, STEP = "anarch.model", "anarch.relaxations", "anarch.lifted", "anarch.step"
"""What a model checkpoint says of its network."""

TIED = "anarch.tied"
"""A table of the names that share a tensor with another: name -> name that is stored."""

TENSORS_DIGEST, METADATA_DIGEST = "anarch.tensors_sha256", "anarch.metadata_sha256"

SEGMENT_STATE = "anarch.x.anarch.segment"
"""What a segment of a run keeps beside tensors, so that it can go on."""
