"""README and docs: links resolve, every command is one that the command line takes, every Python block runs."""

import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from tutelage.cli.app import app
from tutelage.pipeline.recipe import Recipe
from tutelage.records import InputError

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# The front page of a repository is read on two screens.
MOST_README_LINES = 100
# What stands for a value of the reader's own.
PLACEHOLDERS = {"NAME": "demo", "ROW": "8576a5ae", "FILE": "nets.csv", "PATH": "images", "USER@HOST": "me@host"}


def fenced(page: Path, language: str = "") -> Iterator[str]:
    """Yield the fenced blocks of a page that name a language (or none)."""
    for found in re.finditer(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        if found[1] == language:
            yield found[2]


def commands() -> list[tuple[str, str]]:
    """List (page, command) of every `tutelage ...` in a block or between backticks."""
    listed = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        lines = [line.strip() for block in fenced(page) for line in block.splitlines()]
        lines += re.findall(r"`((?:\.venv/bin/)?tutelage [^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.S))
        for line in lines:
            if found := re.match(r"(?:\.venv/bin/|accelerate launch -m )?tutelage (.+)", line):
                listed.append((page.name, found[1]))
    return listed


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.is_file(), f"{page.name} links {target}"
        assert not anchor or anchor in anchors(file), f"{page.name} links {target}"


def test_every_page_is_linked_from_the_readme_or_the_site() -> None:
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name in site, f"{page.name} is not in mkdocs.yml"
        assert f"docs/{page.name}" in readme or page.name in site


def test_the_readme_fits_on_two_screens() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= MOST_README_LINES


def test_the_guide_names_commands() -> None:
    assert len(commands()) > 30


@pytest.mark.parametrize(("page", "line"), commands())
def test_every_command_is_one_that_the_command_line_takes(page: str, line: str) -> None:
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(line.split(" #")[0])]
    assert not (wrong := refusal(words)), f"{page}: tutelage {line}: {wrong}"


def refusal(words: list[str]) -> str:
    """Parse a command as far as it goes without running it; give the parser's complaint, or nothing."""
    command: Any = typer.main.get_command(app)
    context: Any = None
    try:
        while True:
            context = command.make_context(words[0] if words else "tutelage", list(words), parent=context)
            rest = [*getattr(context, "_protected_args", []), *context.args]
            if not hasattr(command, "commands") or not rest:
                return ""
            command, words = command.resolve_command(context, rest)[1:]
            assert command is not None
    except RuntimeError as error:  # typer's own: no arguments where a group wants a verb
        return "" if type(error).__name__ == "NoArgsIsHelpError" else repr(error)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        named_alone = len(words) == 0  # `tutelage bench` in a sentence names a verb
        return "" if named_alone and type(error).__name__ == "MissingParameter" else error.format_message()


@pytest.mark.parametrize(
    "words",
    [
        ["search", "--evalz", "60"],
        ["nosuch"],
        ["leaderboard", "nosuch"],
        ["search", "--evals", "many"],
        ["device", "add"],
    ],
)
def test_a_wrong_command_would_be_seen(words: list[str]) -> None:
    assert refusal([*words, "--workspace", "w"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_of_the_guide_runs(page: Path, tmp_path: Path) -> None:
    for number, block in enumerate(fenced(page, "python")):
        (tmp_path / f"{number}.py").write_text(block)
        runpy.run_path(str(tmp_path / f"{number}.py"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_recipes_of_the_guide_are_recipes(page: Path) -> None:
    for block in fenced(page, "yaml"):
        Recipe.model_validate(yaml.safe_load(block))


def test_a_recipe_that_does_not_exist_is_told_with_the_nearest() -> None:
    from tutelage.pipeline.recipe import load_recipe

    with pytest.raises(InputError, match="demo"):
        load_recipe("demp")
