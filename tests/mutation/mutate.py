"""Make mutants of a source file: cosmic-ray's operators, and four of our own for statements and handlers."""

from __future__ import annotations

import ast
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

# The first two need to be given the variables to swap; whether equal strings and small numbers are one object is up to
# the interpreter.
_LEFT_OUT = {
    *("core/VariableInserter", "core/VariableReplacer"),
    *("core/ReplaceComparisonOperator_Eq_Is", "core/ReplaceComparisonOperator_NotEq_IsNot"),
}
# Guards against our own bugs: nothing that a test could do sets them off.
_GUARDS = ("frozen", "strict")
Replacement = tuple[str, Callable[[], str]]  # an operator's name, and what writes the mutated source


@dataclass(frozen=True)
class Mutant:
    """One change of a file: `before` and `after` are the first lines that differ, stripped."""

    operator: str
    line: int
    before: str
    after: str
    source: str

    @property
    def change(self) -> tuple[str, str]:
        return self.before, self.after


def sample(source: str, num: int, seed: int) -> list[Mutant]:
    """Draw at most `num` mutants that differ from `source` in what runs (annotations and docstrings do not count).

    Sites are drawn, not operators: `a + b` has eleven replacements and `not a` has one, and both are one site.
    """
    rng = random.Random(seed)
    sites = [list(group) for group in _sites(source)]
    for site in sites:
        rng.shuffle(site)
    rng.shuffle(sites)
    original = _what_runs(source)
    drawn: list[Mutant] = []
    seen = {original}
    while sites and len(drawn) < num:
        for site in list(sites):
            mutant = _next(source, site, seen)
            if mutant is None:
                sites.remove(site)
                continue
            drawn.append(mutant)
            if len(drawn) == num:
                break
    return drawn


def _next(source: str, site: list[Replacement], seen: set[str]) -> Mutant | None:
    """Take the next replacement of a site whose code was not drawn before; None where there is no more."""
    while site:
        name, make = site.pop()
        # cosmic-ray takes the stars of `{**a}` and `f(*a)` for operators, and fails at `except (A, b.C)`.
        try:
            text = make()
            runs = _what_runs(text)
        except (SyntaxError, AttributeError):
            continue
        if runs in seen:
            continue
        seen.add(runs)
        line, before, after = _first_difference(source, text)
        return Mutant(name, line, before, after, text)
    return None


def _sites(source: str) -> Iterator[list[Replacement]]:
    """Give the replacements of each place of the source."""
    import parso
    from cosmic_ray.plugins import get_operator, operator_names

    tree = parso.parse(source)
    constants = _lines_of_constants(source)
    by_place: dict[object, list[Replacement]] = {}
    for name in sorted(set(operator_names()) - _LEFT_OUT):
        operator = get_operator(name)()
        places = [place for node in _walk(tree) for place in operator.mutation_positions(node)]
        for occurrence, place in enumerate(places):
            if name == "core/NumberReplacer" and place[0][0] in constants:
                continue
            by_place.setdefault(place, []).append((name, partial(_mutated, source, operator, occurrence)))
    yield from by_place.values()
    for name, text in [*_removals(source), *_exceptions_of_modules(source)]:
        yield [(name, partial(str, text))]


def _lines_of_constants(source: str) -> set[int]:
    """Find the module's named numbers: each is a stated choice, and a test that repeats it would test nothing."""
    assigned = [node for node in ast.parse(source).body if isinstance(node, ast.Assign | ast.AnnAssign)]
    return {node.lineno for node in assigned if isinstance(node.value, ast.Constant)}


def _mutated(source: str, operator: object, occurrence: int) -> str:
    from cosmic_ray.mutating import mutate_code

    text = mutate_code(source.encode(), operator, occurrence)
    assert text is not None, "the occurrence was counted on this very source"
    return str(text)


def _walk(node: Any) -> Iterator[Any]:
    yield node
    for child in getattr(node, "children", ()):
        yield from _walk(child)


def _removals(source: str) -> Iterator[tuple[str, str]]:
    """Remove a statement, make a branch never taken, or let a function give its first argument back."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr | ast.AugAssign) and not _is_docstring(node):
            yield "own/remove-statement", _with_lines(source, node, "pass")
        if isinstance(node, ast.FunctionDef) and len(node.body) > 1:
            names = [arg.arg for arg in node.args.args if arg.arg not in ("self", "cls")]
            if names and node.returns is not None and ast.unparse(node.returns) != "None":
                body = node.body[1:] if _is_docstring(node.body[0]) else node.body
                yield "own/return-first-argument", _with_lines(source, body[0], f"return {names[0]}")


def _exceptions_of_modules(source: str) -> Iterator[tuple[str, str]]:
    """Let a handler no longer catch `module.Error`; cosmic-ray does this for names without a dot alone."""
    lines = source.split("\n")
    handlers = [node.type for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ExceptHandler)]
    for caught in handlers:
        for node in caught.elts if isinstance(caught, ast.Tuple) else [caught]:
            if isinstance(node, ast.Attribute):
                row, line = node.lineno - 1, lines[node.lineno - 1]
                changed = f"{line[: node.col_offset]}GeneratorExit{line[node.end_col_offset :]}"
                yield "own/exception", "\n".join([*lines[:row], changed, *lines[row + 1 :]])


def _with_lines(source: str, node: ast.stmt, statement: str) -> str:
    """Put `statement` in place of a node; what stands behind a `return` is never reached."""
    lines = source.split("\n")
    start, end = node.lineno - 1, node.end_lineno or node.lineno
    return "\n".join([*lines[:start], " " * node.col_offset + statement, *lines[end:]])


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _what_runs(source: str) -> str:
    """Dump the program without what no test can notice: annotations (they are postponed), docstrings, guards, types."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
            node.args = _plain(node.args)
        elif isinstance(node, ast.AnnAssign) and node.value is not None and not isinstance(node.target, ast.Name):
            node.annotation = ast.Constant(0)
        elif isinstance(node, ast.keyword) and node.arg in _GUARDS:
            node.value = ast.Constant(0)
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = [ast.Pass()]
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [statement for statement in body if not _is_docstring(statement)] or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _plain(args: ast.arguments) -> ast.arguments:
    """Give parameters without annotations; whether they may be named only is a guard, too."""
    named = [*args.posonlyargs, *args.args, *args.kwonlyargs]
    for arg in [*named, args.vararg, args.kwarg]:
        if arg is not None:
            arg.annotation = None
    defaults = [*args.defaults, *(value for value in args.kw_defaults if value is not None)]
    return ast.arguments([], named, args.vararg, [], [], args.kwarg, defaults)


def _first_difference(source: str, text: str) -> tuple[int, str, str]:
    old, new = source.split("\n"), text.split("\n")
    for number, (a, b) in enumerate(zip(old, new, strict=False), 1):
        if a != b:
            return number, a.strip(), b.strip()
    return len(old), "", ""
