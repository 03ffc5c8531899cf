"""Pictures as people have them: orientation, deep pixels by one range, modes, animation, size, damage."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from tutelage.distill.data.images import Decoding, decode, read_picture
from tutelage.distill.data.registry import load_dataset
from tutelage.records import InputError

GRADIENT = np.tile(np.linspace(0, 255, 16, dtype=np.uint8), (16, 1))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((16, 16), dtype=np.uint8)
    upright[:8, :8], upright[:8, 8:] = 255, 128
    # what is stored, so that the tag turns it back (EXIF 2.3, tag 274)
    stored = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.T,
              6: np.rot90(upright), 7: upright[::-1, ::-1].T, 8: np.rot90(upright, -1)}[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "x.png", exif=exif)
    found = read_picture(tmp_path / "x.png", 16, 1, Decoding())
    np.testing.assert_array_equal(found.pixels[:, :, 0], upright)
    assert bool(found.remarks) == (orientation > 1)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int32, np.float32])
def test_deep_pixels_are_scaled_by_one_range(tmp_path: Path, dtype: type) -> None:
    for top in (1020, 1030):
        values = np.full((16, 16), 500)
        values[:, 12:] = top
        Image.fromarray(values.astype(dtype)).save(tmp_path / f"{top}.tif")
    how = Decoding(range=(0.0, 1000.0))
    one, other = (read_picture(tmp_path / f"{top}.tif", 16, 1, how) for top in (1020, 1030))
    np.testing.assert_array_equal(one.pixels, other.pixels)
    assert one.pixels[0, 0, 0] == 128  # 500 / 1000 * 255, rounded
    assert one.pixels[0, 15, 0] == 255  # clipped
    assert (one.extent, other.extent) == ((500.0, 1020.0), (500.0, 1030.0))


def _signed_tiff(path: Path, values: np.ndarray) -> None:
    """Write int16 gray by hand: Pillow reads such files and writes them as int32."""
    tags = [(256, values.shape[1]), (257, values.shape[0]), (258, 16), (259, 1), (262, 1), (273, 8), (277, 1),
            (278, values.shape[0]), (279, values.nbytes), (339, 2)]  # fmt: skip
    head = b"II*\0" + struct.pack("<I", 8 + values.nbytes) + values.tobytes()
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in tags)
    path.write_bytes(head + struct.pack("<H", len(tags)) + entries + bytes(4))


def test_the_default_range_is_that_of_the_type(tmp_path: Path) -> None:
    values = np.array([[0, 4095, 65535]] * 3)
    Image.fromarray(values.astype(np.uint16)).save(tmp_path / "u16.png")
    assert decode(tmp_path / "u16.png", 3)[0][0, :, 0].tolist() == [0, 16, 255]
    _signed_tiff(tmp_path / "i16.tif", (values - 32768).astype("<i2"))
    assert decode(tmp_path / "i16.tif", 3)[0][0, :, 0].tolist() == [0, 16, 255]
    Image.fromarray((values / 65535).astype(np.float32)).save(tmp_path / "f.tif")
    assert decode(tmp_path / "f.tif", 3)[0][0, :, 0].tolist() == [0, 16, 255]
    Image.fromarray(np.array([[-1024.0, 900.0]], dtype=np.float32)).save(tmp_path / "hu.tif")
    with pytest.raises(
        InputError, match=r"hu\.tif holds float32 pixels from -1024 to 900: state .*data\.options\.range"
    ):
        decode(tmp_path / "hu.tif", 8)


def test_a_set_that_uses_little_of_its_range_is_said_and_a_stated_range_mends_it(tmp_path: Path) -> None:
    for number in range(24):
        path = tmp_path / "set" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(number).integers(0, 4096, (16, 16)).astype(np.uint16)
        Image.fromarray(values).save(path)
    plain = load_dataset("folder", path=tmp_path / "set", size=16, cache=tmp_path / "cache")
    assert plain.images.max() == 16
    assert "data.options.range: [0, 4095]" in plain.notes[-1]
    options = {"range": [0, 4095]}
    stated = load_dataset("folder", path=tmp_path / "set", size=16, cache=tmp_path / "cache", options=options)
    assert stated.images.max() == 255
    assert not stated.notes
    assert plain.identity != stated.identity
    again = load_dataset("folder", path=tmp_path / "set", size=16, cache=tmp_path / "cache")
    assert again.notes == plain.notes  # a cache remembers what was said
    np.testing.assert_array_equal(again.images, plain.images)


def test_lab_hsv_and_premultiplied_pictures_become_rgb_and_gray(tmp_path: Path) -> None:
    rgb = Image.fromarray(np.stack([GRADIENT] * 3, axis=2))
    lab = ImageCms.profileToProfile(
        rgb, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    lab.save(tmp_path / "lab.tif")
    for channels in (1, 3):
        pixels = decode(tmp_path / "lab.tif", 16, channels)[0]
        np.testing.assert_allclose(pixels[..., 0].astype(int), GRADIENT, atol=6)


def test_the_first_frame_is_read_and_said(tmp_path: Path) -> None:
    frames = [Image.fromarray(GRADIENT), Image.fromarray(GRADIENT[:, ::-1].copy())]
    for name in ("x.gif", "x.tif", "x.png", "x.webp"):
        extra = {"lossless": True} if name == "x.webp" else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **extra)
        found = read_picture(tmp_path / name, 16, 1, Decoding())
        np.testing.assert_allclose(found.pixels[:, :, 0].astype(int), GRADIENT, atol=2)
        assert found.remarks == ("have several frames or pages: the first is read",)


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 20_000, 10_000, 8, 0, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    (tmp_path / "big.png").write_bytes(content)
    with pytest.raises(
        InputError, match=r"big\.png holds 200 megapixels, and at most 179 are decoded: save it smaller"
    ):
        decode(tmp_path / "big.png", 8)


@pytest.mark.parametrize("kind", ["png", "jpg", "gif", "tif", "webp", "bmp", "jp2", "qoi", "tga"])
def test_damaged_bytes_are_one_line_and_never_a_traceback(tmp_path: Path, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.fromarray(np.stack([GRADIENT, GRADIENT.T, GRADIENT[::-1]], axis=2))
    picture.save(tmp_path / f"x.{kind}", **({"exif": exif} if kind in ("jpg", "png", "webp", "tif") else {}))
    whole = (tmp_path / f"x.{kind}").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        content = bytearray(whole[: int(rng.integers(1, len(whole) + 1))])
        for place in rng.integers(0, len(content), 4):
            content[place] = int(rng.integers(256))
        (tmp_path / f"y.{kind}").write_bytes(content)
        try:
            assert decode(tmp_path / f"y.{kind}", 8)[0].shape == (8, 8, 1)
        except InputError as error:
            assert f"y.{kind}" in str(error)  # noqa: PT017


def test_pictures_with_nothing_to_see_are_noted(tmp_path: Path) -> None:
    """Fully transparent pictures differ as files and are all black as they are read."""
    rng = np.random.default_rng(0)
    for number in range(24):
        folder = tmp_path / "ab"[number % 2]
        folder.mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, (10, 10, 4), dtype=np.uint8)
        pixels[..., 3] = 255 * (number > 1)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    (note,) = load_dataset("folder", path=tmp_path, size=8).notes
    assert note.startswith("2 pictures hold one value only, so there is nothing to see in them, e.g. ")
