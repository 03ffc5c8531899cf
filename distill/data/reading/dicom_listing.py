"""Order and group the DICOM files of a listing by what their heads say: patient, series, place in the series."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from tutelage.distill.data.dataset import Listing
from tutelage.records import InputError

from .dicom import Head, is_nameless, read_head
from .ids import canonical_id
from .suffixes import looks_like_dicom


def with_heads(listing: Listing, *, grouped: bool) -> Listing:
    """Group a listing's DICOM files by PatientID (unless it is `grouped`), and sort each series by position.

    Files without pixels (reports, presentation states) are left out. A file whose head cannot be read stays, so that
    decoding names it. Where no patient is named, the study, then the series, is the group.
    """
    heads: dict[int, Head] = {}
    without = []
    for index, path in enumerate(listing.paths):
        if looks_like_dicom(path):
            head = read_head(path)
            if head is not None and not head.has_pixels:
                without.append(index)
            elif head is not None:
                heads[index] = head
    if not heads and not without:
        return listing
    groups = listing.groups.astype(object)
    notes = [*listing.notes]
    num_nameless = 0
    for index, head in heads.items():
        if grouped:
            break
        nameless = is_nameless(head.patient)
        num_nameless += nameless
        fallback = head.study or head.series or str(groups[index])
        groups[index] = f"(no PatientID) {fallback}" if nameless else canonical_id(head.patient)
    if without:
        example = listing.paths[without[0]].name
        notes.append(f"{len(without)} DICOM files without a picture are left out, e.g. {example}")
    if num_nameless:
        notes.append(f"{num_nameless} DICOM files name no patient: the study, or the series, is the group")
    if not grouped and len(heads) > 1 and len({head.study for head in heads.values()}) > 1:
        patients = {head.patient for head in heads.values()}
        if len(patients) == 1 and num_nameless == 0:
            notes.append(f"all DICOM files have PatientID {patients.pop()!r}: one group; name another by group")
    kept = np.setdiff1d(np.arange(len(listing.paths)), without)
    if not listing.multi_label and len(np.unique(listing.labels[kept])) < len(np.unique(listing.labels)):
        label = int(np.setdiff1d(listing.labels, listing.labels[kept])[0])
        raise InputError(f"class {listing.class_names[label]} at {listing.root} holds no image: its DICOM files have "
                         "no picture in them (reports, presentation states)")  # fmt: skip
    order = sorted(kept.tolist(), key=lambda index: _place(listing, heads, index))
    sorted_ = replace(listing, groups=groups.astype(np.str_), notes=tuple(notes), facts=_facts(list(heads.values())))
    return sorted_.take(np.array(order, dtype=np.int64))


def _place(listing: Listing, heads: dict[int, Head], index: int) -> tuple[object, ...]:
    """Give the key by which a listing is sorted: splits and classes stay together, a series is in order."""
    label = listing.labels[index]
    kind = () if listing.multi_label else (str(listing.splits[index]), int(label))
    head = heads.get(index)
    if head is None:
        return (*kind, 0, "", "", 0.0, 0, index)
    return (*kind, 1, canonical_id(head.patient), head.series, head.position, head.number, index)


def _facts(heads: list[Head]) -> dict[str, int]:
    """Count patients, series, modalities and pixel spacings."""
    named = {canonical_id(head.patient) for head in heads if not is_nameless(head.patient)}
    facts = {"DICOM files": len(heads), "patients": len(named), "series": len({head.series for head in heads})}
    modalities = Counter(head.modality for head in heads)
    spacings = Counter(head.spacing for head in heads)
    for title, counts in (("modality", modalities), ("pixel spacing", spacings)):
        facts.update({f"{title} {value or 'not said'}": number for value, number in counts.most_common(5)})
    return facts
