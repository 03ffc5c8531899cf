"""DICOM files by pydicom (extra `dicom`): their pixels as gray or RGB, and what their heads say of patient and series.

Values are rescaled (slope and intercept, or the modality's table), then scaled by the recipe's range, the window that
the file carries, or the range of its stored bits; MONOCHROME1 is inverted. Text that is burned in is not looked for.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.distill.data.containers.paths import container_of, read_bytes
from tutelage.records import InputError

from .ids import is_blank
from .pixels import Range, range_of, to_bytes

WINDOW_HELP = (
    "of DICOM pictures: tag (default; the window that each file carries, else all values), full (all values of the "
    "stored bits) or [centre, width]"
)

_HEAD_TAGS = (
    "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "InstanceNumber", "ImagePositionPatient",
    "ImageOrientationPatient", "Modality", "PixelSpacing", "ImagerPixelSpacing", "Rows",
)  # fmt: skip

Window = str | Range


@dataclass(frozen=True)
class Values:
    """Gray or RGB pixels `(h, w[, 3])` uint8, the extent of the values before scaling, the range that scaled them."""

    pixels: NDArray[np.uint8]
    extent: Range | None = None
    limits: Range | None = None
    num_frames: int = 1


@dataclass(frozen=True)
class Head:
    """What a file says of itself; texts are "" where it does not. `position` is along the series' axis, in mm."""

    patient: str = ""
    study: str = ""
    series: str = ""
    position: float = 0.0
    number: int = 0
    modality: str = ""
    spacing: str = ""
    has_pixels: bool = True


def stated_window(value: Any) -> Window:
    """Check the option `window`."""
    if value in ("tag", "full"):
        return str(value)
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:
        centre, width = value
        if all(isinstance(one, int | float) and not isinstance(one, bool) for one in value) and width >= 1:
            return float(centre), float(width)
    raise InputError(f"window {value!r} is not tag, full or [centre, width] with a width of at least 1")


def read_head(path: Path) -> Head | None:
    """Read what a file says of itself, without its pixels; None where it is no DICOM file or is damaged."""
    pydicom = _pydicom()
    try:
        data = pydicom.dcmread(_source(path), stop_before_pixels=True, specific_tags=list(_HEAD_TAGS))
        spacing = data.get("PixelSpacing") or data.get("ImagerPixelSpacing")
        return Head(
            patient=str(data.get("PatientID") or "").strip(),
            study=str(data.get("StudyInstanceUID") or ""),
            series=str(data.get("SeriesInstanceUID") or ""),
            position=_position(data),
            number=int(data.get("InstanceNumber") or 0),
            modality=str(data.get("Modality") or ""),
            spacing=" x ".join(f"{float(one):.4g}" for one in spacing) + " mm" if spacing else "",
            has_pixels="Rows" in data or "Modality" not in data,  # else a report, or damaged: decoding says it
        )
    except Exception:  # noqa: BLE001 - pydicom and its decoders raise whatever damaged bytes lead to
        return None


def read_values(content: bytes, stated: Range | None, window: Window) -> Values:
    """Decode a file's bytes; of several frames the first. InputError says what is wrong, without the file's name."""
    pydicom, data = _pydicom(), None
    try:
        data = pydicom.dcmread(io.BytesIO(content))
        if "PixelData" not in data and "FloatPixelData" not in data and "DoubleFloatPixelData" not in data:
            raise InputError(f"is a DICOM file without a picture (modality {data.get('Modality') or 'not said'})")
        num_frames = int(data.get("NumberOfFrames") or 1)
        stored = pydicom.pixels.pixel_array(data, index=0)
        if stored.ndim == 3:
            return Values(_colour(stored), num_frames=num_frames)
        if data.PhotometricInterpretation == "PALETTE COLOR":
            return Values(_colour(pydicom.pixels.apply_color_lut(stored, data)), num_frames=num_frames)
        rescaled = np.asarray(pydicom.pixels.apply_modality_lut(stored, data))
        pixels, limits = _scaled(rescaled, stored, data, stated, window)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - pydicom and its decoders raise whatever damaged bytes lead to
        reason = _missing_decoder(pydicom, data) if isinstance(error, RuntimeError) else ""
        if reason:
            raise InputError(reason) from None
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise InputError(f"is damaged, or not a DICOM file that can be decoded: {reason}") from None
    if data.PhotometricInterpretation == "MONOCHROME1":
        pixels = 255 - pixels
    return Values(pixels, (float(rescaled.min()), float(rescaled.max())), limits, num_frames)


def _missing_decoder(pydicom: Any, data: Any) -> str:
    """Say which packages decode a file's compressed pixels, where none of them is installed; else ""."""
    syntax: Any = getattr(getattr(data, "file_meta", None), "TransferSyntaxUID", None)
    try:
        decoder = pydicom.pixels.get_decoder(syntax)
    except (NotImplementedError, TypeError, ValueError):
        return ""
    if decoder.is_available:
        return ""
    ways = "; or ".join(" ".join(way.split()) for way in decoder.missing_dependencies)
    return f"is compressed as {syntax.name}, and no decoder of that is installed: pip install what one needs ({ways})"


def _source(path: Path) -> Path | io.BytesIO:
    """Give what pydicom reads: the file, or the bytes of one in a container."""
    return path if container_of(path) is None else io.BytesIO(read_bytes(path))


def _pydicom() -> Any:
    try:
        import pydicom
        import pydicom.pixels
    except ImportError:
        raise InputError("DICOM files are read by pydicom: pip install 'tutelage[dicom]'") from None
    return pydicom


def _scaled(
    values: NDArray[Any], stored: NDArray[Any], data: Any, stated: Range | None, window: Window
) -> tuple[NDArray[np.uint8], Range]:
    """Scale by the recipe's range or window, else by the file's own, else by all values that its bits hold."""
    if stated is not None:
        return to_bytes(values, range_of(values, stated)), stated
    if not isinstance(window, str):
        limits = _window(window[0], window[1], "LINEAR")
        return to_bytes(values, range_of(values, limits)), limits
    if window == "tag" and data.get("VOILUTSequence"):
        import pydicom.pixels

        table = data.VOILUTSequence[0].LUTDescriptor
        mapped = np.asarray(pydicom.pixels.apply_voi(values, data), dtype=np.float64)
        limits = (0.0, float(2 ** int(table[2]) - 1))
        return to_bytes(mapped, limits), limits
    if window == "tag" and data.get("WindowCenter") is not None and data.get("WindowWidth") is not None:
        centre, width = _first(data.WindowCenter), _first(data.WindowWidth)
        kind = str(data.get("VOILUTFunction") or "LINEAR").upper()
        if width >= 1 or (width > 0 and kind != "LINEAR"):
            limits = _window(centre, width, kind)
            if kind == "SIGMOID":  # PS3.3 C.11.2.1.3.1
                return to_bytes(1 / (1 + np.exp(-4 * (values - centre) / width)), (0.0, 1.0)), limits
            return to_bytes(values, range_of(values, limits)), limits
    limits = _full(values, stored, data)
    return to_bytes(values, range_of(values, limits)), limits


def _window(centre: float, width: float, kind: str) -> Range:
    """Give the values that a window makes black and white; PS3.3 C.11.2.1.2.1 for LINEAR, C.11.2.1.3.2 for EXACT."""
    if kind == "LINEAR":
        half = max(width - 1, 1e-3) / 2
        return centre - 0.5 - half, centre - 0.5 + half
    return centre - width / 2, centre + width / 2


def _full(values: NDArray[Any], stored: NDArray[Any], data: Any) -> Range:
    """Give the least and the largest value that the stored bits can hold, rescaled; floats are as `range_of` says."""
    if stored.dtype.kind == "f":
        return range_of(values)
    bits, signed = int(data.BitsStored), int(data.get("PixelRepresentation") or 0) == 1
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    if data.get("ModalityLUTSequence"):
        return 0.0, float(2 ** int(data.ModalityLUTSequence[0].LUTDescriptor[2]) - 1)
    slope, intercept = float(data.get("RescaleSlope") or 1), float(data.get("RescaleIntercept") or 0)
    ends = sorted((low * slope + intercept, high * slope + intercept))
    return ends[0], max(ends[1], ends[0] + 1)


def _colour(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Bring RGB pixels to 8 bits by the range of their type."""
    rgb = values[..., :3]
    return rgb if rgb.dtype == np.uint8 else to_bytes(rgb, range_of(rgb))


def _first(value: Any) -> float:
    """Give the first of several windows: the one that a viewer opens with."""
    return float(value if isinstance(value, int | float | str) else value[0])


def _position(data: Any) -> float:
    """Give a slice's place along the normal of its plane, in mm; 0 where the file does not say it."""
    place, axes = data.get("ImagePositionPatient"), data.get("ImageOrientationPatient")
    if not place or not axes or len(place) != 3 or len(axes) != 6:
        return 0.0
    normal = np.cross([float(one) for one in axes[:3]], [float(one) for one in axes[3:]])
    return float(normal @ np.array([float(one) for one in place]))


def is_nameless(patient: str) -> bool:
    """Tell a PatientID that names nobody: blank, or a word that anonymisers write for all."""
    return is_blank(patient) or patient.strip().lower() in ("anonymous", "anonymized", "anonymised", "anon")
