"""A team's shared files: the same in a folder and on an S3 and a GCS server, by content, with errors of one line."""

import hashlib
import os
import stat
from types import SimpleNamespace

import pytest
from fsspec.core import url_to_fs

from tutelage.leaderboard.team.place import open_place, place_at
from tutelage.records import InputError

from ...gcs import serving_gcs
from ...s3 import SECRET, serving_s3

CONTENT = b"probabilities of a row" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(scope="module")
def s3():
    with serving_s3() as served:
        yield served


@pytest.fixture(scope="module")
def gs():
    with serving_gcs() as served:
        yield served


@pytest.fixture(params=["folder", "s3", "gs"])
def url(request, tmp_path):
    if request.param == "folder":
        return str(tmp_path / "shared")
    return f"{request.param}://{request.getfixturevalue(request.param).bucket}/{request.node.name.partition('[')[0]}"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "probabilities.npz"
    path.write_bytes(CONTENT)
    return path


def fails(*words: str):
    """Expect one line that holds the words and no secret."""

    class Checked:
        def __enter__(self):
            self.inner = pytest.raises(InputError)
            self.caught = self.inner.__enter__()

        def __exit__(self, *given):
            done = self.inner.__exit__(*given)
            text = str(self.caught.value)
            assert "\n" not in text
            assert SECRET not in text
            for word in words:
                assert word in text, text
            return done

    return Checked()


def written(url: str, content: bytes) -> None:
    """Put other bytes where those of SHA256 belong, as a damaged disk or a stranger would."""
    files, root = url_to_fs(url)
    files.pipe_file(f"{root}/{SHA256[:2]}/{SHA256}", content)


def test_a_file_comes_back_and_is_copied_once(url, file, tmp_path):
    place = place_at(url)
    place.check_writable()
    assert place.put(file, SHA256)
    assert not place.put(file, SHA256)
    assert not place_at(url).put(file, SHA256)
    fetched = tmp_path / "elsewhere" / "probabilities.npz"
    place_at(url).get(SHA256, fetched, "the file")
    assert fetched.read_bytes() == CONTENT


def test_what_is_not_there_is_named_with_the_remedy(url, tmp_path):
    place = place_at(url)
    place.check_writable()
    to = tmp_path / "elsewhere" / "file"
    with fails("artifacts/1/p.npz of row 0123 is not in ", "leaderboard share"):
        place.get(SHA256, to, "artifacts/1/p.npz of row 0123")
    assert not to.exists()


def test_other_bytes_than_the_row_says_are_refused_and_not_kept(url, file, tmp_path):
    place = place_at(url)
    place.check_writable()
    place.put(file, SHA256)
    to = tmp_path / "elsewhere" / "file"
    written(url, b"X" + CONTENT[1:])
    with fails("another content", SHA256):
        place.get(SHA256, to, "the file")
    assert not to.exists()
    written(url, CONTENT[:100])  # one that a killed copy left: the next `put` makes it whole
    assert place.put(file, SHA256)
    place.get(SHA256, to, "the file")
    assert to.read_bytes() == CONTENT


def test_a_hash_that_is_none_reaches_no_server(url, tmp_path):
    with fails("is no SHA-256"):
        place_at(url).get("../../etc/passwd", tmp_path / "file", "the file")


def test_credentials_that_are_missing_or_refused_are_said_in_one_line(s3, monkeypatch, tmp_path, file):
    import s3fs

    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    s3fs.S3FileSystem.clear_instance_cache()
    with fails("TUTELAGE_ARTIFACTS: s3://team/none cannot be written", "credentials"):
        place_at("s3://team/none").check_writable()
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_bucket_that_is_not_there_and_a_server_that_is_away_are_said(s3, monkeypatch, file):
    import s3fs

    with fails("s3://nobodys-bucket/x cannot be written", "bucket does not exist", "make it first"):
        place_at("s3://nobodys-bucket/x").check_writable()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    with fails("s3://team/x cannot be written", "127.0.0.1:1"):
        place_at("s3://team/x").put(file, SHA256)
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_gcs_bucket_that_is_not_there_and_a_server_that_is_away_are_said_without_a_traceback(
    gs, monkeypatch, caplog, file
):
    import gcsfs

    async def at_once(_: float) -> None:
        """Stand for the half minute between the client's tries."""

    with fails("gs://nobodys-bucket/x cannot be written", "make it first"):
        place_at("gs://nobodys-bucket/x").check_writable()
    monkeypatch.setattr(gcsfs.retry, "asyncio", SimpleNamespace(sleep=at_once))
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    gcsfs.GCSFileSystem.clear_instance_cache()
    with fails("gs://team/x cannot be written", "127.0.0.1:1"):
        place_at("gs://team/x").put(file, SHA256)
    gcsfs.GCSFileSystem.clear_instance_cache()
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_said(tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with fails("cannot be written"):
            place_at(str(tmp_path / "shared")).check_writable()
    finally:
        tmp_path.chmod(stat.S_IRWXU)


def test_a_folder_below_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with fails("cannot be written"):
        place_at(str(tmp_path / "file" / "shared")).check_writable()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sftp://me:hidden-word@host/files", "holds a password"),
        ("s3://bucket/prefix?key=hidden-word", "holds a password"),
        ("zip://x::s3://bucket/hidden-word", "chains several places"),
        ("nothing://bucket/prefix", "Protocol not known"),
        ("gs://bucket/prefix", "pip install 'tutelage[gcs]'"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_without_its_secret(url, words):
    if url.startswith("gs://"):
        try:
            import gcsfs  # noqa: F401
        except ImportError:
            pass
        else:
            pytest.skip("gcsfs is installed: its absence cannot be tested")
    with fails(words) as _:
        place_at(url)


def test_secrets_of_the_environment_are_taken_out_of_what_a_client_says(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    place = place_at(str(tmp_path))
    with fails("signed with ... was refused"), place._plain_errors("cannot be written"):
        raise PermissionError(f"the request signed with {SECRET} was refused")


def test_the_place_is_what_the_variable_names(monkeypatch, tmp_path):
    monkeypatch.delenv("TUTELAGE_ARTIFACTS", raising=False)
    assert open_place() is None
    monkeypatch.setenv("TUTELAGE_ARTIFACTS", f" {tmp_path} ")
    assert open_place().name == str(tmp_path)
