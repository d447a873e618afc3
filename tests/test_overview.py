"""The overview page: nothing of a run becomes markup, and its table can be sorted and filtered."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from figures import HOSTILE, change, change_config, folders, settings

from dimred.report.pictures.catalogue import pictures
from dimred.report.pictures.overview import page
from dimred.report.pictures.picture import WIDE, short_path, without_plain_groups


class Page(HTMLParser):
    """Elements and addresses of a page, and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""


@pytest.fixture(scope="module")
def hostile(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of runs of which one has markup wherever it can."""
    runs = Path(shutil.copytree(trained, tmp_path_factory.mktemp("hostile") / "runs"))
    run = folders(runs, "snip-s0.9-seed0-*")[0]
    change(
        run,
        method=HOSTILE,
        model=HOSTILE,
        command=[HOSTILE],
        versions={HOSTILE: HOSTILE},
        commit=HOSTILE,
    )
    other = folders(runs, "snip-s0.9-seed1-*")[0]
    change(other, method=HOSTILE)
    for folder in (run, other):
        (folder / "config.yaml").write_text(
            (folder / "config.yaml").read_text() + f"exclude_: {json.dumps(HOSTILE)}\n"
        )
    found = settings(runs)
    drawn = [
        picture for what in ("sparsity", "layers", "curves") for picture in pictures(what, found)[0]
    ]
    return page(found, drawn, [f"{HOSTILE}: damaged"]).decode()


def test_nothing_of_a_run_becomes_a_style(runs: Path) -> None:
    for run in folders(runs):
        change(run, method='x style="}b{" y')
    for what in ("sparsity", "curves"):
        for picture in pictures(what, settings(runs))[0]:
            svg = picture.inline(WIDE, "p")
            sheets = "".join(re.findall(r"<style.*?</style>", svg, re.S))
            assert (
                "}b{" in svg and "}b{" not in sheets and not re.search(r"<[a-z][^<>]* style=", svg)
            )


def test_nothing_of_a_run_becomes_markup_or_script(hostile: str) -> None:
    tags = [tag for tag, _ in Page(hostile).elements]
    assert tags.count("script") == 1 and not {"img", "b", "iframe", "object"} & set(tags)
    assert not [
        name
        for _, attributes in Page(hostile).elements
        for name in attributes
        if name.startswith("on")
    ]
    assert "<script>document.title" not in hostile and "&lt;script&gt;document.title" in hostile


def test_the_page_allows_only_its_own_script_and_no_requests(hostile: str) -> None:
    found = Page(hostile)
    policy = next(
        str(a["content"])
        for _, a in found.elements
        if a.get("http-equiv") == "Content-Security-Policy"
    )
    digest = base64.b64encode(hashlib.sha256("".join(found.scripts).encode()).digest()).decode()
    assert (
        f"script-src 'sha256-{digest}';" in policy
        and "default-src 'none'" in policy
        and "http" not in policy
    )
    assert "'unsafe-inline'" not in policy.replace("style-src 'unsafe-inline'", "")
    addresses = [
        a[key] or ""
        for _, a in found.elements
        for key in ("src", "href", "xlink:href", "action")
        if key in a
    ]
    assert addresses and all(address.startswith(("#", "data:image/png")) for address in addresses)


def test_the_page_has_every_run_with_its_configuration_and_is_accessible(
    trained: Path,
) -> None:
    found = settings(trained)
    text = page(found, pictures("sparsity", found)[0], []).decode()
    for run in found[0].points[0].runs:
        assert str(run.folder) in text and f"{100 * run.result['test_accuracy']:.2f}</td>" in text
    elements = Page(text).elements
    links = {str(a["href"])[1:] for tag, a in elements if tag == "a"}
    assert (
        links == links & {str(a.get("id")) for _, a in elements}
        and len([x for x in links if "config-" in x]) == 5
    )
    assert text.count("weight_decay: 0.0005") == 5  # once for all seeds
    assert 'name="viewport"' in text and "prefers-color-scheme: dark" in text
    assert (
        all(a.get("scope") for tag, a in elements if tag == "th")
        and ("html", {"lang": "en"}) in elements
    )
    assert all(a.get("aria-label") for tag, a in elements if tag == "figure")


def test_the_table_sorts_and_filters_in_a_browser(hostile: str, tmp_path: Path) -> None:
    browser = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if not browser:
        pytest.skip("no chromium to open the page with")
    test = """
        const wait = () => new Promise((done) => setTimeout(done, 200));
        const column = (n) => [...document.querySelectorAll("#runs tbody tr")].map((row) => row.cells[n].textContent);
        const head = (n) => document.querySelectorAll("#runs thead th")[n].querySelector("[role=button]");
        const pick = (key, value) => { const select = document.querySelector(`select[data-key=${key}]`);
          select.value = value; select.dispatchEvent(new Event("change")); };
        const found = { rows: column(0), boxes: document.querySelectorAll("input[type=search]").length };
        document.documentElement.style.width = "360px";     // a phone's; no window of a browser is as narrow
        found.wide = document.body.scrollWidth; document.documentElement.style.width = "";
        const search = (text) => { const box = document.querySelector("input[type=search]");
          box.value = text; box.dispatchEvent(new Event("input")); };
        search("dense"); await wait(); found.searched = column(0); search(""); await wait();
        head(3).dispatchEvent(new KeyboardEvent("keypress", { key: "Enter", keyCode: 13, which: 13, bubbles: true }));
        await wait(); found.rising = column(3);
        head(3).click(); await wait(); found.falling = column(3);
        pick("method", "set"); found.chosen = column(0);
        pick("sparsity", "90 %"); found.few = column(1);
        document.getElementById("clear").click(); await wait(); found.all = column(0).length;
        location.hash = "#config-2"; await wait();
        found.open = [...document.querySelectorAll("details[open]")].length;
        // to read a Blob takes real time, and the virtual time of a browser runs ahead of it
        window.Blob = function (parts) { found.csv = parts.join(""); };
        URL.createObjectURL = () => "#";
        document.querySelector("button[data-csv=runs]").click();
        document.getElementById("grouped").click(); await wait();
        found.means = [...document.querySelectorAll("#means tbody tr")].map((row) => [row.cells[2].textContent, row.cells[3].textContent]);
        found.hidden = document.getElementById("runs-part").hidden;
        const b = document.getElementById("run-b"); b.value = "9"; b.dispatchEvent(new Event("change")); await wait();
        found.parts = [...document.querySelectorAll("#comparison h3")].map((part) => part.textContent);
        found.apart = [...document.querySelectorAll("#comparison table")].map((table) => [...table.rows].map((row) => [...row.cells].map((cell) => cell.textContent)));
        found.lines = document.querySelectorAll("#comparison polyline").length;
        found.title = document.title;
        document.body.dataset.found = JSON.stringify(found);"""
    digest = base64.b64encode(hashlib.sha256(test.encode()).digest()).decode()
    path = tmp_path / "page.html"  # the same policy, but for the script of the test
    path.write_text(
        hostile.replace("script-src ", f"script-src 'sha256-{digest}' ", 1).replace(
            "</body>", f'<script type="module">{test}</script></body>'
        )
    )
    done = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-quic",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=500,844",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=20000",
            "--dump-dom",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    body = next(a for tag, a in Page(done.stdout).elements if tag == "body")
    assert body.get("data-found"), done.stderr
    found = json.loads(str(body["data-found"]))
    assert found["boxes"] == 1 and found["searched"] == ["dense"] * 2
    assert found["wide"] == 360, "something sticks out of a phone"
    assert len(found["rows"]) == 10 and found["all"] == 10 and found["open"] == 1
    assert found["rising"] == sorted(found["rising"], key=float) != found["falling"]
    assert found["falling"] == sorted(found["falling"], key=float, reverse=True)
    assert found["chosen"] == ["set"] * 4 and found["few"] == ["90"] * 2
    assert found["title"] == "dimred: 10 runs"
    rows = list(csv.DictReader(io.StringIO(found["csv"])))
    assert len(rows) == 10 and all(float(row["Test accuracy %"]) <= 1 for row in rows)
    assert found["hidden"] and sum(int(seeds) for seeds, _ in found["means"]) == 10
    assert all(re.fullmatch(r"[\d.]+( ± [\d.]+)?", accuracy) for _, accuracy in found["means"])
    assert found["parts"] == ["Configuration", "Numbers", "Curves", "Masks"] and found["lines"] == 2
    configuration, numbers, masks = found["apart"]
    assert "method._target_" in [row[0] for row in configuration]
    assert "Method" in [row[0] for row in numbers] and len(masks) == 4


def test_unfinished_runs_are_listed_with_their_progress(trained: Path) -> None:
    rows = [
        {"run": HOSTILE, "folder": "a/b", "state": "running", "at": "epoch 2", "fraction": 0.4},
        {"run": "other", "folder": "a/c", "state": "waiting", "at": "not begun"},
    ]
    text = page(settings(trained), [], [], rows).decode()
    assert "<script>document.title" not in text and "Unfinished runs" in text
    elements = Page(text).elements
    assert [a["value"] for tag, a in elements if tag == "progress"] == ["0.4"] and "40 %" in text


def test_means_over_seeds_stand_beside_the_runs(runs: Path) -> None:
    for run, accuracy in zip(folders(runs, "snip-s0.9-*"), (0.9, 0.96), strict=True):
        change(run, test_accuracy=accuracy)
    text = page(settings(runs), [], []).decode()
    assert f">93.00 ± {100 * math.sqrt(2 * 0.03**2):.2f}</td>" in text
    assert ">90.00</td>" in text and ">96.00</td>" in text


def test_a_column_has_the_settings_in_which_runs_differ_if_they_do(runs: Path) -> None:
    assert ">Settings</th>" not in page(settings(runs), [], []).decode()
    for folder in folders(runs, "set-s0.5-*"):
        change_config(folder, "epochs: 3", "epochs: 4")
    text = page(settings(runs), [], []).decode()
    assert ">Settings</th>" in text and '<td class="text">recipe.epochs=4</td>' in text


def test_a_path_of_fewer_letters_is_the_same_path() -> None:
    assert short_path("M 1.0 2.5 \nL 3 -4.0 \nL 5 6 \nz\n") == "M1 2.5 3-4 5 6z"
    assert short_path("M 0 0 Q 1 1 2 -2 L 3 3 L 4 4") == "M0 0Q1 1 2-2L3 3 4 4"
    assert without_plain_groups('<g>\n<g id="a">\n<g>x</g></g></g>') == '\n<g id="a">\nx</g>'
