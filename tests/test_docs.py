"""docs/methods.md agrees with docstrings and configurations, and these are complete."""

import importlib.util
from types import ModuleType

import pytest
from conftest import ROOT

from dimred.runs.config.files import describe_method, names

METHODS = names("method")


@pytest.fixture(scope="module")
def docs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_docs", ROOT / "scripts/docs/main.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_methods_is_up_to_date(docs: ModuleType) -> None:
    assert docs.PAGE.read_text() == docs.page(), "run scripts/make_docs"


def test_every_method_is_on_the_page_once(docs: ModuleType) -> None:
    page = docs.page()
    for name in METHODS:
        assert page.count(f"\n| `{name}` | ") == 1


@pytest.mark.parametrize("name", METHODS)
def test_a_docstring_says_what_trains_what_is_stored_and_what_is_needed(name: str) -> None:
    about = describe_method(name)
    for part in ("equation", "trains", "stores", "needs", "source"):
        assert about[part], (
            f"{name}: its docstring has no {part}; see dimred/runs/config/docstrings.py"
        )


def test_equations_and_bars_survive_markdown(docs: ModuleType) -> None:
    assert docs.cell("a|b\n c", code=True) == "`a\\|b`<br>`c`"
    assert (
        docs.plain(1.0) == "1.0"
        and docs.plain(True) == "true"
        and docs.plain([None, 2]) == "[null, 2]"
    )
    lines = docs.table([{"name": "n", "summary": "s"}]).splitlines()
    assert lines == ["| name | what it does |", "| --- | --- |", "| `n` | s |"]
