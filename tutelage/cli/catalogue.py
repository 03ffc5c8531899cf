"""What the verbs of the device catalogue print: the entries, and what is wrong with a contribution."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from tutelage.bench.devices.contribution import ContributionCheck
from tutelage.bench.devices.entries import KINDS, Entry
from tutelage.records import FaultsError


def print_catalogue(entries: Sequence[Entry], console: Console, as_json: bool = False) -> None:
    """Print the entries: what they are, when and how they were made, and their error on nets left out."""
    if as_json:
        print(json.dumps([entry.to_dict() for entry in entries]))
        return
    table = Table(title="Device catalogue", box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for entry in entries:
        said = entry.provenance
        error = "" if said.left_out_error is None else f"; error {said.left_out_error:.1%} on {said.left_out_nets} nets"
        how = f"{KINDS[said.kind]}, {said.date}{error}; {said.licence}"
        table.add_row(entry.name, f"{said.description}\n{how}")
    console.print(table, highlight=False)
    console.print(
        "error: mean relative error of the latency model on nets left out of its fit. "
        "Start from one: tutelage device add NAME --like ENTRY",
        highlight=False,
        soft_wrap=True,
    )


def print_contribution(found: ContributionCheck, console: Console, as_json: bool = False) -> None:
    """Print where a contribution lies and its recomputed error. Raises FaultsError of what is wrong with it."""
    if as_json:
        print(
            json.dumps(
                {
                    "folder": str(found.folder), "faults": list(found.faults),
                    "left_out_error": found.left_out_error, "left_out_nets": found.left_out_nets,
                }
            )
        )  # fmt: skip
    if found.faults:
        raise FaultsError(found.faults)
    if as_json:
        return
    error = ""
    if found.left_out_error is not None:
        error = f"; its table gives {found.left_out_error:.1%} on {found.left_out_nets} nets left out, as stated"
    console.print(f"{found.folder} is ready to be contributed{error}", highlight=False, soft_wrap=True)
