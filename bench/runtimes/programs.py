"""Read the input's shape of an exported program: a `.pt2` of PyTorch, a `.pte` of ExecuTorch."""

from __future__ import annotations

from pathlib import Path

from tutelage.records import InputError

from .adapters import load_program


def program_shape(path: Path) -> list[int | None]:
    """Give (batch, channels, height, width) as the program takes it; None for a size that it leaves open.

    Raises InputError for a file that is no such program, and where its runtime is not installed.
    """
    read = _pt2_shape if path.suffix == ".pt2" else _pte_shape
    try:
        return read(path)
    except ImportError as error:
        raise InputError(f"ExecuTorch is not installed: pip install 'tutelage[executorch]' to read {path}") from error
    except Exception as error:  # the readers raise types of their own
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"{path} is not a {path.suffix} program: {reason[0]}") from error


def _pt2_shape(path: Path) -> list[int | None]:
    program = load_program(str(path))
    name = program.graph_signature.user_inputs[0]
    node = next(node for node in program.graph.nodes if node.op == "placeholder" and node.name == name)
    return [int(size) if isinstance(size, int) else None for size in node.meta["val"].shape]


def _pte_shape(path: Path) -> list[int | None]:
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(path).load_method("forward")
    return [int(size) for size in method.metadata.input_tensor_meta(0).sizes()]
