"""Read a CSV as people have them: any usual delimiter and encoding, packed or not, each row of the header's width."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from tutelage.distill.data.containers.paths import container_of, is_file, read_bytes
from tutelage.records import InputError

SUFFIXES = (".csv", ".tsv", ".tab", ".csv.gz", ".tsv.gz", ".csv.zip", ".tsv.zip")

# PadChest's table, of the largest, has 160,000 rows and 100 MB; a few packed kilobytes may unpack to any number.
MAX_TABLE_BYTES = 2**30

_DELIMITERS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class Table:
    """A table's header and rows, all of one width; `lines` are the rows' first lines in the file, from 1 up.

    `notes` say what was read otherwise than as a CSV with commas in UTF-8.
    """

    file: Path
    header: list[str]
    rows: list[list[str]]
    lines: list[int]
    notes: tuple[str, ...] = ()

    def where(self, row: int) -> str:
        """Name a row for a message: the file and the line."""
        return f"{self.file}, line {self.lines[row]}"

    def find(self, name: str) -> int | None:
        """Find a column by name, or by name in another case; None where there is none, InputError where two are."""
        exact = [place for place, cell in enumerate(self.header) if cell == name]
        alike = [place for place, cell in enumerate(self.header) if cell.lower() == name.lower()]
        for found in (exact, alike):
            if len(found) > 1:
                raise InputError(f"{self.file} has {len(found)} columns {name!r}: rename all but one")
            if found:
                return found[0]
        return None

    def column(self, name: str) -> int:
        """Find a column that must be there; InputError names those that are."""
        place = self.find(name)
        if place is None:
            raise InputError(f"{self.file} has no column {name!r}; it has {', '.join(self.header)}")
        return place

    def cells(self, place: int) -> list[str]:
        """Give one column's cells, without blanks around them."""
        return [row[place].strip() for row in self.rows]


def is_table(path: Path) -> bool:
    """Tell a table by its suffix."""
    return is_file(path) and path.name.lower().endswith(SUFFIXES)


def read_table(file: Path) -> Table:
    """Read a table: cells between commas, semicolons, tabs or |, in UTF-8, UTF-16 or Latin-1, gz and zip too.

    Lines without a value are dropped. Every row has the cells of the header: a truncated row, or one with a comma that
    is not quoted, would put a value under another column's name, and is an InputError with its line. Empty cells at
    the end may be too many.
    """
    if not is_file(file):
        raise InputError(f"no table at {file}")
    text, notes = _text(file)
    delimiter, text, skipped = _delimiter(text)
    if delimiter != ",":
        notes.append(f"{file.name} is separated by {'tabs' if delimiter == chr(9) else delimiter!r}")
    file_like = io.StringIO(text, newline="")
    reader = csv.reader(file_like, delimiter=delimiter, strict=True, skipinitialspace=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    start = 1 + skipped
    try:
        for row in reader:
            if "".join(row).strip():
                if rows and len(row) != len(rows[0]):
                    row = _fitted(row, len(rows[0]), f"{file}, line {start}", delimiter)
                rows.append(row)
                lines.append(start)
            start = reader.line_num + 1 + skipped
    except csv.Error as error:
        raise InputError(f"{file}, line {start}: {error}: is a quote left open?") from None
    if len(rows) < 2:
        raise InputError(f"{file} holds no rows")
    return Table(file, [cell.strip() for cell in rows[0]], rows[1:], lines[1:], tuple(notes))


def _text(file: Path) -> tuple[str, list[str]]:
    """Read a file's text, unpacked, and what was not UTF-8 about it."""
    try:
        content = _unpacked(file)
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        raise InputError(f"cannot read {file}: {getattr(error, 'strerror', None) or error}") from None
    notes: list[str] = []
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings: tuple[str, ...] = ("utf-16",)
    else:
        encodings = ("utf-8-sig", "cp1252", "latin-1")
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if not encoding.startswith("utf-8"):
            notes.append(f"{file.name} is not in UTF-8: read as {'UTF-16' if encoding == 'utf-16' else 'Latin-1'}")
        if "\0" in text:
            break
        return text, notes
    raise InputError(f"{file} is not a text file: it holds NUL bytes")


def _unpacked(file: Path) -> bytes:
    content = file.read_bytes() if container_of(file) is None else read_bytes(file)
    if file.suffix.lower() == ".gz":
        with gzip.open(io.BytesIO(content)) as packed:
            return _bounded(file, packed.read(MAX_TABLE_BYTES + 1))
    if file.suffix.lower() != ".zip":
        return _bounded(file, content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        inside = [name for name in archive.namelist() if name.lower().endswith(SUFFIXES) and "__MACOSX" not in name]
        if len(inside) != 1:
            raise InputError(f"{file} holds {len(inside)} tables ({', '.join(inside[:3]) or 'none'}): keep one in it")
        with archive.open(inside[0]) as member:
            return _bounded(file, member.read(MAX_TABLE_BYTES + 1))


def _bounded(file: Path, content: bytes) -> bytes:
    if len(content) > MAX_TABLE_BYTES:
        raise InputError(f"{file} holds more than {MAX_TABLE_BYTES // 2**20} MiB of text: split it")
    return content


def _delimiter(text: str) -> tuple[str, str, int]:
    """Give the delimiter, the text without a spreadsheet's `sep=;` line, and how many lines that were."""
    declared = re.match(r"sep=(.)\r?\n", text)
    if declared:
        return declared[1], text[declared.end() :], 1
    header = next((line for line in text.splitlines() if line.strip()), "")
    bare = re.sub(r'"[^"]*"', "", header)
    return max(_DELIMITERS, key=bare.count), text, 0


def _fitted(row: list[str], width: int, where: str, delimiter: str) -> list[str]:
    """Drop empty cells beyond the header; refuse a row of another length."""
    while len(row) > width and not row[-1]:
        row = row[:-1]
    if len(row) != width:
        name = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}.get(delimiter, delimiter)
        remedy = f"quote a cell that holds a {name}" if len(row) > width else "the row is truncated"
        raise InputError(f"{where}: {len(row)} cells, and the header has {width}; {remedy}")
    return row
