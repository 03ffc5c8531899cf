"""A real S3 server on 127.0.0.1 (moto's), and what a client reads to find it."""

from __future__ import annotations

import logging
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

KEY, SECRET = "AKIATUTELAGETESTS000", "not-a-real-secret-of-anybody-0123456789"


@dataclass
class Served:
    """A running server: its address, and a bucket that is there."""

    url: str
    bucket: str = "team"


@contextmanager
def serving_s3() -> Iterator[Served]:
    """Serve S3 with one empty bucket, in this process, and let clients find it by the variables that they read."""
    pytest.importorskip("s3fs", reason="no S3 client: pip install 'tutelage[s3]'")
    server = pytest.importorskip("moto.server", reason="no S3 server: pip install 'moto[s3]' flask flask-cors")
    import s3fs

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    served = Served(f"http://{host}:{port}")
    # Buckets are the process's, not the server's: those of another module's server would still be there.
    urllib.request.urlopen(urllib.request.Request(f"{served.url}/moto-api/reset", method="POST")).close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", served.url)
        patch.setenv("AWS_ACCESS_KEY_ID", KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir(served.bucket)
        yield served
        s3fs.S3FileSystem.clear_instance_cache()
    running.stop()
