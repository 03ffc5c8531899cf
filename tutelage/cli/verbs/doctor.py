"""`tutelage doctor`: say what this machine has and lacks."""

from __future__ import annotations

from rich.console import Console

from tutelage.cli.options import JsonOption


def doctor(as_json: JsonOption = False) -> None:
    """Say what this machine has: cores, runtimes, versions, and what is missing with the command that adds it.

    Example: [bold]tutelage doctor[/]
    """
    from tutelage.cli import inventory

    inventory.print_doctor(Console(markup=False), as_json)
