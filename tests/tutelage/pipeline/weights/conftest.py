"""A hub on 127.0.0.1 and empty caches for what is downloaded from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.served import Served, serving


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """Serve a hub; huggingface_hub's client and torch.hub keep what they fetch in folders of this test."""
    with serving(Served()) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
        monkeypatch.setenv("TUTELAGE_WEIGHTS_MIRROR", f"{served.url}/mirror")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield served
