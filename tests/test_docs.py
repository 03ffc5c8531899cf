"""README and docs: links resolve, every command is one that the command line takes, every Python block runs."""

import re
import runpy
import shlex
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from tutelage.cli.app import app, main
from tutelage.cli.reference import TABLES, with_tables
from tutelage.pipeline.recipe import Recipe
from tutelage.records import InputError

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# The front page of a repository is read on two screens.
MOST_README_LINES = 100
# What stands for a value of the reader's own.
PLACEHOLDERS = {"NAME": "demo", "ROW": "8576a5ae", "FILE": "nets.csv", "PATH": "images", "USER@HOST": "me@host"}
# What `test_the_commands_of_the_guide_run` leaves to the parser: it needs a host, files or runtimes of one's own, or
# minutes of measuring (`my-box`, whose verbs the tests of devices run).
NEEDS_MORE = (
    *("my-box", "--pool", "USER@HOST", "FILE", "images/", "recipe.yaml", "--device mac", "--coreml"),
    *("pruned", "serve", "accelerate", "model.onnx", "@int8"),
)


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


def test_the_tables_of_the_guide_are_the_registries() -> None:
    """Strategies, spaces and methods as they are declared: one that is added, changed or removed fails here."""
    marked = {name: page for page in PAGES for name in re.findall(r"<!-- table (\w+) -->", page.read_text("utf-8"))}
    assert marked.keys() == TABLES.keys()
    for name, page in marked.items():
        text = page.read_text(encoding="utf-8")
        assert text == with_tables(text), f"{name} of {page.name}: run `make reference`"


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


# The recipe `demo` with everything that the guide's commands use, as small as it goes.
SMALL: dict[str, Any] = {
    "name": "demo",
    "data": {"dataset": "phantom", "size": 64, "limit": 160, "augment_variants": 1},
    "teachers": [{"name": "resnet10t", "epochs": 1, "batch_size": 32}],
    "supernet": {"space": "mbconv_small_w1.0", "epochs": 1, "batch_size": 32, "num_random": 1},
    "devices": [{"name": "host-ort-64px", "runtime": "onnxruntime", "max_latency": "90%", "minutes": 0.2}],
    "search": {"strategy": "random", "evaluations": 4, "winners": 1},
    "distill": {"epochs": 1, "batch_size": 32},
    "quantize": {"method": "minmax", "calibration_images": 16},
    "measure": {"bootstrap": 100, "tolerance": 0.9},
    "explain": {"images": 1},
}


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_the_commands_of_the_guide_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As pasted and in their order, in one folder; the recipe `demo` is a small one, data and schedule alone."""
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    (recipes / "demo.yaml").write_text(yaml.safe_dump(SMALL))
    real = resources.files
    monkeypatch.setattr(
        "tutelage.pipeline.recipe.resources.files", lambda name: recipes if name == "tutelage.recipes" else real(name)
    )
    monkeypatch.chdir(tmp_path)
    ran = ["run demo"]
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for line in (line for block in fenced(page) for line in block.splitlines()):
            if found := re.match(r"\.venv/bin/tutelage (.+)", line.strip()):
                ran += [found[1]] if found[1] not in ran and not any(word in line for word in NEEDS_MORE) else []
    assert len(ran) > 8
    for line in ran:
        words = shlex.split(line)
        monkeypatch.setattr("sys.argv", ["tutelage", *words])
        try:
            main()
            code: Any = 0
        except SystemExit as done:
            code = done.code
        # A slow host may hold no subnet within the guide's milliseconds: said in one line, with exit code 3.
        assert code in ((0, None, 3) if words[0] == "search" else (0, None)), line


def test_a_recipe_that_does_not_exist_is_reported_with_the_nearest() -> None:
    from tutelage.pipeline.recipe import load_recipe

    with pytest.raises(InputError, match="demo"):
        load_recipe("demp")
