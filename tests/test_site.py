"""The documentation site: it builds strictly, offline, with a page for every method."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from conftest import ROOT

from dimred.errors import UserError
from dimred.runs.config.files import names
from dimred.runs.trial import require_logits

sys.path.insert(0, str(ROOT / "scripts/docs"))

import method_pages
import tour
from equations import typeset
from families import APART, FAMILIES
from history_picture import path, thinned
from parameters import as_list

METHODS = names("method")


def build(config: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", config, "-d", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT / "mkdocs.yml", folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_method_has_a_page_with_its_equation_fields_and_source(site: Path) -> None:
    for name in METHODS:
        page = (site / f"method/{name}.html").read_text()
        assert f'<h1 id="{name}">' in page
        for part in ("equation", "when-to-use-it", "cost", "fields", "numbers"):
            assert f'<h2 id="{part}">' in page, f"{name} has no {part}"


def test_every_method_has_a_picture_of_a_run_below_20_kilobytes(site: Path) -> None:
    for name in METHODS:
        picture = ROOT / f"docs/pictures/methods/{name}.svg"
        assert ElementTree.parse(picture).getroot().tag.endswith("svg"), "run scripts/histories"
        assert picture.stat().st_size < 20_000
        assert f"../pictures/methods/{name}.svg" in (site / f"method/{name}.html").read_text()


def test_a_picture_has_a_stroke_for_each_stretch_of_a_state() -> None:
    """Two weights, five steps: the first is trained in the steps 0, 1 and 4, the second never."""
    assert path([[3, 3, 1, 1, 3], [1, 1, 0, 0, 0]], 3, "red") == (
        '<path stroke="red" d="M0 0.5h2M4 0.5h1"/>'
    )
    assert path([[3, 3]], 1, "red") == ""
    steps = thinned([*range(127)])  # 64 columns: every other of 127 steps
    assert steps == [*range(0, 127, 2)]


def test_the_page_of_set_has_published_numbers_beside_measured_ones(site: Path) -> None:
    """SET at 95 % in the MNIST comparison of Dettmers and Zettlemoyer: 98.14 % published."""
    text = re.sub(r"<[^>]+>|\xa0", " ", (site / "method/set.html").read_text())
    row = re.search(r"published\s+98\.39\s+98\.14\s+98\.10", text)
    assert row and "98.42 ± 0.05" in text[: row.start()]


def test_the_api_lists_parameters_by_name(site: Path) -> None:
    page = (site / "api.html").read_text()
    assert re.search(r"<li><code>config_dir</code>: your own configurations", page)
    assert page.count("<h2 id=") >= 10
    assert as_list("a, b: one\n    more\nc: two") == "- `a`, `b`: one\n    more\n- `c`: two"
    assert as_list("Not so: a sentence") == "Not so: a sentence"


def test_pages_that_errors_name_are_there(site: Path) -> None:
    named = pages_of_errors()
    assert len(named) >= 8
    for page in named:
        name, _, anchor = page.partition("#")
        assert (ROOT / "docs" / name).exists(), page
        shown = (site / name).with_suffix(".html").read_text()
        assert not anchor or f' id="{anchor}"' in shown, page


def pages_of_errors() -> list[str]:
    """What `see` of dimred/errors.py is called with."""
    texts = [file.read_text() for file in (ROOT / "dimred").rglob("*.py")]
    trees = [ast.parse(text) for text in texts if "see(" in text]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    calls = [node for node in nodes if getattr(node.func, "id", "") == "see"]
    return [ast.literal_eval(call.args[0]) for call in calls]


def test_an_error_ends_with_the_page_that_explains_it() -> None:
    with pytest.raises(UserError, match=r"\. See docs/extending\.md#a-model$"):
        require_logits(torch.zeros(2, 3), 10, "own.build")


def test_the_tour_shows_what_the_cells_of_the_notebook_print(site: Path) -> None:
    code = {source for kind, source in tour.cells() if kind == "code"}
    assert tour.printed().keys() == code, "run scripts/histories tour"
    page = (site / "tour.html").read_text()
    assert "2510 of 50200 weights" in page and 'src="pictures/tour.svg"' in page
    assert (ROOT / "docs/pictures/tour.svg").stat().st_size < 40_000


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    """Links may lead elsewhere; scripts, styles, fonts and pictures may not."""
    pages = [*site.rglob("*.html")]
    assert len(pages) > len(METHODS)
    for page in pages:
        text = page.read_text()
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]*\ssrcs?e?t?=\"?(\S+)", text)
        loaded += re.findall(r"<link[^>]*rel=\"?(?:stylesheet|preload|icon)[^>]*>", text)
        assert loaded and not [part for part in loaded if "//" in part], page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//", style.read_text()), style


def test_links_between_pages_of_the_site_lead_to_pages(site: Path) -> None:
    """Generated pages, too; mkdocs itself checks links in Markdown."""
    for page in site.rglob("*.html"):
        if page.name == "404.html":
            continue
        for link in re.findall(r"<a[^>]*\shref=\"([^\"#:]+)[\"#]", page.read_text()):
            assert (page.parent / link).exists(), f"{page.relative_to(site)}: {link}"


def test_a_broken_link_fails_the_build(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text("A [link](nowhere.md) to nothing.")
    config = tmp_path / "mkdocs.yml"
    config.write_text("site_name: x\n" + validation())
    done = build(config, tmp_path / "site")
    assert done.returncode != 0 and "nowhere.md" in done.stderr


def validation() -> str:
    """What mkdocs.yml says about links."""
    return re.findall(r"^validation:.*?\Z", (ROOT / "mkdocs.yml").read_text(), re.M | re.S)[0]


def test_commands_of_the_first_page_are_those_of_the_readme() -> None:
    """Which a test runs."""
    readme = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs/index.md").read_text(), re.S)
    assert blocks and all(block in readme for block in blocks)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("theta_0 * psi", "<i>θ</i><sub>0</sub> · <i>ψ</i>"),
        ("v_{t-1} >= |x|^2", "<i>v</i><sub><i>t</i>−1</sub> ≥ |<i>x</i>|<sup>2</sup>"),
        ("density^(t/T)", "density<sup><i>t</i>/<i>T</i></sup>"),
        ("psi <- dL/dtheta", "<i>ψ</i> ← <i>d</i><i>L</i>/<i>d</i><i>θ</i>"),
        ("sum_j W_ij", "∑<sub><i>j</i></sub> <i>W</i><sub><i>ij</i></sub>"),
        ("T_end, k = update_every", "<i>T</i><sub>end</sub>, <i>k</i> = <code>update_every</code>"),
        ("a sum of scores < 1", "<i>a</i> sum of scores &lt; 1"),
        ("drop a fraction", "drop a fraction"),
    ],
)
def test_equations_are_set_as_mathematics(text: str, expected: str) -> None:
    assert typeset(text) == f'<div class="equation">{expected}</div>'


def test_what_sets_methods_apart_is_said_of_methods_that_exist() -> None:
    assert not APART.keys() - set(METHODS)
    assert {row["family"] for row in method_pages.methods()} == set(FAMILIES)
