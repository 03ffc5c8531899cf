"""Hooks of `make docs`: the site's front page is the README, and CONTRIBUTING is a page of it."""

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]


def on_files(files: Files, config: Any) -> Files:
    """Add README.md and CONTRIBUTING.md as pages, with their links seen from docs/."""
    for name, source in (("index.md", "README.md"), ("contributing.md", "CONTRIBUTING.md")):
        text = (ROOT / source).read_text(encoding="utf-8")
        text = text.replace("](docs/", "](").replace("](CONTRIBUTING.md)", "](contributing.md)")
        text = text.replace("](README.md)", "](index.md)")
        files.append(File.generated(config, name, content=text))
    return files
