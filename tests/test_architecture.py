"""Who may import whom: the table of the design, kept true."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
from conftest import ROOT

FILES = sorted((ROOT / "dimred").rglob("*.py"))
CORE = {
    "ablations",
    "allocate",
    "batchnorm",
    "channels",
    "coordinates",
    "cover",
    "draws",
    "errors",
    "kernels",
    "maps",
    "masks",
    "net",
    "own_density",
    "products",
    "projections",
    "rewiring",
    "schedules",
    "scores",
    "select",
    "state",
    "watch",
}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """Every module that a file names in an import, wherever in the file; `from x import y` names x
    and x.y."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def own(path: Path) -> set[str]:
    """The files of dimred that a file imports: net, data.base, ..."""
    modules = {module_of(file) for file in FILES} - {"dimred"}
    found = {name.removeprefix("dimred.") for name in imports(path) & modules}
    return {
        "scores" if name.startswith("scores.") else name for name in found
    }  # a package, seen as one file


def foreign(path: Path) -> set[str]:
    """The packages that a file imports, but for dimred and Python's own."""
    return {name.partition(".")[0] for name in imports(path)} - sys.stdlib_module_names - {"dimred"}


def only(paths: list[Path], allowed: set[str]) -> None:
    for path in paths:
        assert own(path) <= allowed, f"{path.relative_to(ROOT)} imports {own(path) - allowed}"


def named(*names: str) -> list[Path]:
    """The files of these modules and packages."""
    return [
        path
        for path in FILES
        if any(f"{module_of(path)}.".startswith(f"dimred.{name}.") for name in names)
    ]


def test_the_core_needs_torch_and_numpy_alone() -> None:
    only(named(*CORE), CORE)
    for path in named(*CORE):
        assert foreign(path) <= {"torch", "numpy"}


def test_the_loop_knows_data_in_general_and_no_method() -> None:
    only(
        named("train"), CORE | {"data.base", "record", "costs", "exploration", "origin", "progress"}
    )
    assert foreign(named("train")[0]) <= {"torch"}


METHODS = [path for path in FILES if module_of(path).startswith("dimred.methods.")]


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_methods_know_the_core_and_no_other_family(path: Path) -> None:
    *package, family = module_of(path).split(".")[1:3]
    siblings = {
        module_of(each).removeprefix("dimred.") for each in named(".".join([*package, family]))
    }
    only([path], CORE - {"cover", "state"} | {"train"} | siblings)
    assert foreign(path) <= {"torch"}


def test_models_and_data_know_nothing_of_dimred_but_errors() -> None:
    for package in ("models", "data"):
        paths = [path for path in FILES if module_of(path).startswith(f"dimred.{package}")]
        only(
            paths, {"errors", package} | {module_of(path).removeprefix("dimred.") for path in paths}
        )


def test_configuration_stays_in_few_files() -> None:
    few = ("build", "run", "sweep", "schema", "identity", "composition", "rerun")
    for path in FILES:
        if path.stem not in few and "commands" not in path.parts:
            assert not foreign(path) & {"hydra", "omegaconf"}, path


def test_nobody_imports_the_command_line_or_the_run() -> None:
    for path in FILES:
        commands = "commands" in path.parts
        assert "cli" not in own(path), path
        assert "run" not in own(path) or commands or path.stem == "sweep", path
        assert (
            not {name for name in own(path) if name.startswith("commands")}
            or commands
            or path.stem == "cli"
        ), path
        assert (
            not {name for name in own(path) if name.startswith("report")}
            or commands
            or "report" in path.parts
        ), path
