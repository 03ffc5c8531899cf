"""Model files of a workspace, known by the content of all their files: `filed_model`, `is_model`."""

from __future__ import annotations

from pathlib import Path

from tutelage.files import model_bytes, model_digest, sha256_of
from tutelage.pipeline.workspace import Workspace
from tutelage.records import Artifact


def is_model(path: Path, digest: str) -> bool:
    """Say whether a file is there and is the model of a digest.

    Rows that were filed before all files of a model counted hold the hash of its graph alone, which is all that can be
    compared for them.
    """
    return path.is_file() and digest in (model_digest(path), sha256_of(path))


def filed_model(workspace: Workspace, path: Path) -> Artifact:
    """Record a model in a stage's folder; where weights lie in a second file beside it, both count."""
    return Artifact(
        kind="model", path=workspace.relative(path), sha256=model_digest(path), size_bytes=model_bytes(path)
    )
