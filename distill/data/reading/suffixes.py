"""Tell pictures and DICOM files from other files by their names, and DICOM files without one by their first bytes."""

from __future__ import annotations

from pathlib import Path

from tutelage.distill.data.containers.paths import read_start

# The suffixes of all formats that Pillow reads by itself: a test compares them with its registry.
SUFFIXES = (
    ".apng", ".avif", ".avifs", ".blp", ".bmp", ".bw", ".cur", ".dcx", ".dds", ".dib", ".fit", ".fits", ".flc", ".fli",
    ".ftc", ".ftu", ".gbr", ".gif", ".icb", ".icns", ".ico", ".im", ".j2c", ".j2k", ".jfif", ".jp2", ".jpc", ".jpe",
    ".jpeg", ".jpf", ".jpg", ".jpx", ".mpo", ".msp", ".pbm", ".pcd", ".pcx", ".pfm", ".pgm", ".png", ".pnm", ".ppm",
    ".psd", ".pxr", ".qoi", ".ras", ".rgb", ".rgba", ".sgi", ".tga", ".tif", ".tiff", ".vda", ".vst", ".webp", ".xbm",
    ".xpm",
)  # fmt: skip

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")


def is_image(path: Path) -> bool:
    """Tell a picture by its suffix; hidden files (`._x.png` of a Mac, `.DS_Store`) are not."""
    return path.suffix.lower() in (*SUFFIXES, *DICOM_SUFFIXES) and not path.name.startswith(".")


def looks_like_dicom(path: Path, start: bytes | None = None) -> bool:
    """Tell a DICOM file by its suffix, or by the mark at byte 128: archives name files by UID, without one.

    `start` are its first bytes, where they have been read.
    """
    suffix = path.suffix.lower()
    if suffix in DICOM_SUFFIXES or suffix in SUFFIXES:
        return suffix in DICOM_SUFFIXES
    return (read_start(path, 132) if start is None else start)[128:132] == b"DICM"
