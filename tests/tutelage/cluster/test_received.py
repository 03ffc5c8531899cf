"""Files that come to a machine while another worker of it reads them: their name is never empty."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tutelage.cluster.files import CACHE_VARIABLE, Sent, receive
from tutelage.files import sha256_of


@pytest.mark.parametrize("links", [True, False], ids=["links", "a file system without links"])
def test_a_file_that_comes_again_is_replaced_and_never_away(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "machine"))
    target, whole = tmp_path / "w" / "network", b"weights" * 100
    target.parent.mkdir()
    target.write_bytes(whole)  # another worker put it there from its own copy, and may be reading it
    seen: list[bytes | None] = []

    def watched(real: Any, works: bool) -> Any:
        def place(source: Path, to: Path) -> Any:
            if not works:
                raise PermissionError(1, "no links")
            seen.append(target.read_bytes() if target.is_file() else None)
            real(source, to)

        return place

    monkeypatch.setattr(os, "link", watched(os.link, works=links))
    monkeypatch.setattr(shutil, "copyfile", watched(shutil.copyfile, works=True))
    receive((Sent("network", sha256_of(target), np.frombuffer(whole, dtype=np.uint8)),), target.parent)
    assert seen == [whole]
    assert [path.name for path in target.parent.iterdir()] == ["network"]
