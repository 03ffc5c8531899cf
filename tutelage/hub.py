"""The Hugging Face hub as every client of it here sees it: its address, whether it may be asked, and what it raises.

Data sets and weights are fetched by huggingface_hub, which is imported where it is used.
"""

from __future__ import annotations

import os

HUB = "https://huggingface.co"


def endpoint() -> str:
    """Give the address of the hub: the one that `HF_ENDPOINT` names, or the public one."""
    return os.environ.get("HF_ENDPOINT") or HUB


def offline() -> bool:
    """Say whether the user forbids downloads, by `HF_HUB_OFFLINE`, for all sources."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def hub_errors() -> tuple[type[Exception], ...]:
    """Give what a request to the hub raises where there is no answer, or one that is no file."""
    from huggingface_hub import errors

    # HTTPError is of the HTTP library that the installed version uses; not all versions have the second.
    found = (getattr(errors, "HTTPError", None), getattr(errors, "RevisionResolutionError", None))
    return (OSError, *(kind for kind in found if kind is not None))


def first_line(error: BaseException) -> str:
    """Give the first line of what an error says, or its kind where it says nothing.

    Where the first line only announces what follows, as before another process's traceback, the last line goes with it.
    """
    lines = (str(error).strip() or type(error).__name__).splitlines()
    return f"{lines[0]} {lines[-1].strip()}" if lines[0].endswith(":") and len(lines) > 1 else lines[0]
