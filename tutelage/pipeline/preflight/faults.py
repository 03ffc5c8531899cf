"""`Faults` collects what checks refuse, so that all of it is raised at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from tutelage.pipeline.recipe import Recipe, RecipeFaultsError
from tutelage.records import FaultsError, InfeasibleBudgetError, InputError

P = ParamSpec("P")
T = TypeVar("T")


class Faults:
    """The lines of what checks refuse, in their order, and the sections of a recipe that could not be read."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.infeasible: list[str] = []
        self._unread: set[str] = set()

    def reads(self, *sections: str) -> bool:
        """Say whether the recipe's sections of these names could be read."""
        return self._unread.isdisjoint(sections)

    def check(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Call a check and give its result; None where it refuses, which is kept."""
        try:
            return call(*args, **kwargs)
        except InfeasibleBudgetError as error:
            self.infeasible.append(str(error))
        except FaultsError as error:
            self.lines += error.lines
        except InputError as error:
            self.lines.append(str(error))
        except OSError as error:  # a file or folder that may not be read
            if error.filename is None:
                raise
            self.lines.append(f"{error.filename}: {error.strerror}")
        return None

    def read(self, call: Callable[P, Recipe], *args: P.args, **kwargs: P.kwargs) -> Recipe:
        """Read a recipe; of one with faulty values the rest, without the sections that they stand in."""
        try:
            return call(*args, **kwargs)
        except RecipeFaultsError as error:
            self.lines += error.lines
            self._unread |= {*error.unread}
            return error.rest

    def refuse(self) -> None:
        """Raise what was kept: a budget that nothing meets as such where there is no other fault."""
        if self.lines:
            lines = list(dict.fromkeys((*self.lines, *self.infeasible)))
            raise InputError(lines[0]) if len(lines) == 1 else FaultsError(lines)
        if self.infeasible:
            raise InfeasibleBudgetError("; ".join(self.infeasible))
