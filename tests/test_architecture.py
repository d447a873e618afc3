"""Imports between rooms, as docs/design.md draws them."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

FILES = sorted((ROOT / "dimred").rglob("*.py"))

#: a room, and the rooms that it may import from; every room may import errors, files and fields
ROOMS = {
    "errors": set[str](),
    "files": set[str](),
    "fields": set[str](),
    "network": set[str](),
    "garbage": set[str](),
    "kernels": set[str](),
    "net": {"kernels"},
    "models": {"network"},
    "data": {"network"},
    "runs.config": set[str](),
    "scores": {"net"},
    "select": {"net", "scores"},
    "channels": {"net", "scores"},
    "storage": {"net"},
    "training": {"net", "data", "select", "channels", "storage", "garbage"},
    "trackers": {"net", "storage", "training", "runs.config"},
    "methods": {"net", "scores", "select", "channels", "storage", "training", "runs.config"},
    "runs": {
        *("net", "models", "data", "runs.config", "scores", "storage", "training", "trackers"),
        "methods",
    },
    "report": {"storage", "runs.config", "runs", "network", "garbage"},
    "conformance": {"net", "data", "storage", "training", "methods", "runs"},
    "cli": {
        *("net", "data", "channels", "storage", "training", "runs.config", "runs"),
        *("report", "conformance", "garbage"),
    },
}
#: the room of a file may be larger than what the file needs
FILES_THAT_NEED_LESS = {
    "storage.masks": {"errors", "files"},
}


def module_of(path: Path) -> str:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    return module.removeprefix("dimred").removeprefix(".")


MODULES = {module_of(path): path for path in FILES}


def room_of(module: str) -> str:
    """net.coordinates is in net, runs.config.files in runs.config; the front door is in no room."""
    first, *rest = module.split(".")
    return "runs.config" if first == "runs" and rest[:1] == ["config"] else first


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [name for name in names if name.removeprefix("dimred.") in MODULES]
            yield from modules or [str(node.module)]


def own(path: Path) -> set[str]:
    """The modules of dimred that a file imports: net.coordinates, ..."""
    names = {name for name in imports(path) if name.partition(".")[0] == "dimred"}
    return {name.removeprefix("dimred").removeprefix(".") for name in names}


def foreign(path: Path) -> set[str]:
    """The packages that a file imports, but for dimred and Python's own."""
    packages = {name.partition(".")[0] for name in imports(path)}
    return packages - sys.stdlib_module_names - {"dimred"}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_from_the_rooms_below_it(room: str) -> None:
    for module, path in MODULES.items():
        if room_of(module) == room:
            found = {room_of(each) for each in own(path)}
            assert found <= ROOMS[room] | {room, "errors", "files", "fields"}, module


def test_every_folder_is_a_room() -> None:
    assert {room_of(module) for module in MODULES if module} - {"__main__"} == ROOMS.keys()


def test_there_are_no_import_cycles() -> None:
    """Of rooms: where one imports from another, the other is above it in the list."""
    order = list(ROOMS)
    for room, below in ROOMS.items():
        assert all(order.index(each) < order.index(room) for each in below), room


@pytest.mark.parametrize("module", FILES_THAT_NEED_LESS)
def test_some_files_import_less_than_their_room(module: str) -> None:
    assert {room_of(each) for each in own(MODULES[module])} <= FILES_THAT_NEED_LESS[module]


def test_the_mathematics_imports_only_torch_and_numpy() -> None:
    for module, path in MODULES.items():
        if room_of(module) in ("net", "scores", "select", "channels"):
            assert foreign(path) <= {"torch", "numpy"}, module


def test_methods_and_the_loop_import_only_torch() -> None:
    for module, path in MODULES.items():
        if room_of(module) == "methods" or module == "training.loop":
            assert foreign(path) <= {"torch"}, module


@pytest.mark.parametrize("room", ["net", "data", "training"])
def test_the_map_of_a_large_room_names_all_of_its_files(room: str) -> None:
    text = (ROOT / "dimred" / room / "__init__.py").read_text()
    files = {path.name for path in (ROOT / "dimred" / room).glob("[a-z]*.py")}
    assert set(re.findall(r"[a-z_]+[.]py", text)) == files


def test_no_method_imports_a_method_of_another_family() -> None:
    """What families share lies beside them: base.py, random_start.py, own_density.py."""
    families = {path.stem for path in (ROOT / "dimred/methods").iterdir() if path.is_dir()}
    for module, path in MODULES.items():
        if module.startswith("methods."):
            used = {name.split(".")[1] for name in own(path) if name.startswith("methods.")}
            own_family = module.split(".")[1]
            assert used & families <= {own_family}, module


def test_only_the_reading_of_configurations_imports_hydra() -> None:
    for module, path in MODULES.items():
        if room_of(module) not in ("runs", "runs.config", "cli"):
            assert not foreign(path) & {"hydra", "omegaconf"}, module


def test_a_report_reads_run_folders_and_computes_nothing() -> None:
    for module, path in MODULES.items():
        if room_of(module) == "report":
            assert not foreign(path) & {"torch", "hydra", "omegaconf"}, module
            used = {name for name in own(path) if room_of(name) in ("runs", "storage")}
            assert used <= {"storage.masks", "runs.terminal", "runs.printing"}, module
