"""Hooks of mkdocs: the pages of the site that are generated, and links that leave docs/."""

from __future__ import annotations

import logging
import re
import sys
from os.path import normpath
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))

import method_pages
import tour
from main import ROOT
from measured import FILLED, unbroken

log = logging.getLogger("mkdocs.plugins.dimred")

#: pages of the site that are files elsewhere in the repository
ELSEWHERE = {
    "contributing.md": ROOT / "CONTRIBUTING.md",
    "changes.md": ROOT / "CHANGELOG.md",
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    fill(config.nav, "Methods", method_pages.navigation())
    fill(config.nav, "Measured tables", measured_navigation())
    if others := without_a_place(config.nav):
        config.nav.append({"More": others})
    return config


def without_a_place(nav: Any) -> list[str]:
    """The pages of docs/ that mkdocs.yml does not name."""
    named = str(nav)
    pages = sorted(path.name for path in (ROOT / "docs").glob("*.md"))
    return [page for page in pages if f"'{page}'" not in named]


def fill(nav: Any, title: str, entries: list[Any]) -> None:
    """Give the empty section of this title its entries."""
    for section in nav:
        if not isinstance(section, dict):
            continue
        for name, members in section.items():
            if name == title:
                section[name] = entries
            elif isinstance(members, list):
                fill(members, title, entries)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    pages = method_pages.pages()
    pages["tour.md"] = tour.as_markdown()
    pages |= {name: path.read_text() for name, path in ELSEWHERE.items()}
    pages |= {measured_name(path): unbroken(path.read_text()) for path in measured_files()}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def measured_files() -> list[Path]:
    first = FILLED / "README.md"
    return [first, *sorted(path for path in FILLED.glob("*.md") if path != first)]


def measured_name(path: Path) -> str:
    """`--` begins what a table's settings differ in: too long for an address."""
    stem = path.stem.partition("--")[0]
    return "measured/index.md" if stem == "README" else f"measured/{stem}.md"


def measured_navigation() -> list[Any]:
    first, *others = measured_files()
    return [
        measured_name(first),
        *({path.stem.partition("--")[0]: measured_name(path)} for path in others),
    ]


def is_wide(page: Page) -> bool:
    return page.file.src_uri.startswith(("methods.md", "measured/"))


LINK = re.compile(r"\[([^\[\]]+)\]\(([^)\s#:]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links that leave docs/: to a page of the site where the file is one, and otherwise the name
    of the file in the repository."""
    if is_wide(page):
        page.meta["hide"] = ["toc"]  # its tables need the room
    source = ELSEWHERE.get(page.file.src_uri, ROOT / "docs" / page.file.src_uri)

    def target(link: re.Match[str]) -> str:
        words, path, anchor = named(link[1]), link[2], link[3] or ""
        if files.get_file_from_path(normpath(Path(page.file.src_uri).parent / path)):
            return f"[{words}]({path}{anchor})"
        found = (source.parent / path).resolve()
        for name, file in ELSEWHERE.items():
            if found == file:
                return f"[{words}]({name}{anchor})"
        if found.is_relative_to(ROOT / "docs") and found.exists():
            inside = found.relative_to(ROOT / "docs").as_posix()
            return f"[{words}]({inside.replace('quickstart.ipynb', 'tour.md')}{anchor})"
        if found.is_relative_to(ROOT) and found.exists():
            return words
        log.warning("%s links to %s, which is not there", page.file.src_uri, path)
        return link[0]

    return LINK.sub(target, CODE.sub(with_bars, markdown))


def named(words: str) -> str:
    """Words that are the name of a page, as its title."""
    page = ROOT / "docs" / words
    if not words.endswith(".md") or not page.exists():
        return words
    return page.read_text().partition("# ")[2].partition("\n")[0]


CODE = re.compile(r"`[^`\n]+`")


def with_bars(code: re.Match[str]) -> str:
    """In a table, GitHub needs a backslash before a bar in code; Python-Markdown shows it."""
    return code[0].replace("\\|", "|")
