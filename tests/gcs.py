"""A Google Cloud Storage server on 127.0.0.1 (gcp-storage-emulator's), and what a client reads to find it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.s3 import Served


@contextmanager
def serving_gcs() -> Iterator[Served]:
    """Serve one empty bucket, in this process, and let clients find it by the variable that they read."""
    gcsfs = pytest.importorskip("gcsfs", reason="no client: pip install 'tutelage[gcs]'")
    emulator = pytest.importorskip("gcp_storage_emulator.server", reason="pip install gcp-storage-emulator")
    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    running = emulator.create_server("127.0.0.1", 0, in_memory=True, default_bucket="team")
    running.start()
    served = Served(f"http://127.0.0.1:{running._api._httpd.server_address[1]}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", served.url)
        gcsfs.GCSFileSystem.clear_instance_cache()
        yield served
        gcsfs.GCSFileSystem.clear_instance_cache()
    running.stop()
