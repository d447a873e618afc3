"""The tables that dimred ships: every cell is a run, and every method has a row."""

from __future__ import annotations

import json
from typing import Any

import hydra
import pytest
from conftest import ROOT
from tables import TABLES, all_of, shipped

from dimred.report.compose import values_alone
from dimred.report.tables.excerpt import only
from dimred.report.tables.plan import left, sweeps
from dimred.runs.config.files import AS_BEFORE, GROUPS, HOW_TO_COMPUTE, names, read, targets
from dimred.runs.config.schema import checked, checked_group
from dimred.runs.identity import describe


def with_places(group: str, described: Any) -> Any:
    """A description has the classes of dimred by their names alone."""
    if not isinstance(described, dict):
        return described
    found = {target.rpartition(".")[2]: target for target in targets(group)}
    allocations = {target.rpartition(".")[2]: target for target in targets("allocation")}
    plain = {key: with_places("allocation", value) for key, value in described.items()}
    name = plain.get("_target_")
    return plain | {"_target_": (found | allocations)[name]} if name else plain


@pytest.mark.parametrize("name", TABLES)
def test_every_cell_of_a_shipped_table_is_a_valid_run(name: str) -> None:
    table = shipped(name)
    assert table.title and table.source and table.notes
    cells = [cell for part in table.parts for cell in part.cells if cell.description]
    seen = set()
    for each in cells:
        for group in GROUPS.keys() & each.description.keys():
            if (text := json.dumps(each.description[group], sort_keys=True)) not in seen:
                seen.add(text)
                left_out = AS_BEFORE.get(group, {}).keys() - each.description[group].keys()
                checked_group(
                    with_places(group, each.description[group]),
                    group,
                    (*HOW_TO_COMPUTE.get(group, ()), *GROUPS[group], *left_out),
                )
    assert cells and all(each.overrides.get("method") for each in cells)


@pytest.mark.parametrize("name", TABLES)
def test_the_sweeps_of_a_table_are_exactly_its_runs(name: str) -> None:
    jobs = left(shipped(name), [])
    assert all_of(sweeps(jobs)) == sorted(sorted(job.overrides.items()) for job in jobs)
    assert len(sweeps(jobs)) <= max(20, len(jobs) // 10)


def test_cells_are_chosen_by_their_name() -> None:
    (part,) = only(shipped("survey_digits"), r"0\.98: .*: rigl$").parts
    assert part.name == "Sparsity 0.98" and len(part.cells) == 1


def test_what_a_table_composes_is_what_hydra_composes() -> None:
    """In as few cells as have every dataset, model, recipe, ..., every method that chooses others,
    and every key."""
    cells = {
        each: {
            key if "." in key or (key == "method" and values_alone(value)) else f"{key}={value}"
            for key, value in cell.overrides.items()
            if key != "sparsity"
        }
        for name in ("survey_digits", "interspace", "cops", "rigl_imagenet_resnet50")
        for i, part in enumerate(shipped(name).parts)
        for each, cell in {(name, i, cell.row, cell.column): cell for cell in part.cells}.items()
        if cell.description
    }
    left_over = set().union(*cells.values())
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        while left_over:
            name, i, row, column = best = max(cells, key=lambda each: len(cells[each] & left_over))
            left_over -= cells[best]
            cell = next(
                c for c in shipped(name).parts[i].cells if (c.row, c.column) == (row, column)
            )
            cfg = hydra.compose(
                "config", [f"{key}={value}" for key, value in cell.overrides.items()]
            )
            wanted = describe(checked(cfg))
            del wanted["seed"]
            assert cell.description == wanted, cell.overrides


def test_the_survey_has_all_methods() -> None:
    for name in ("survey_digits", "survey_mnist", "survey_cifar10"):
        assert {
            each.overrides["method"] for part in shipped(name).parts for each in part.cells
        } == {
            method for method in names("method") if "???" not in read("method", method).values()
        }  # of another run


def test_the_page_on_tables_names_them_all() -> None:
    page = (ROOT / "docs/tables.md").read_text()
    assert all(f"`{name}`" in page for name in TABLES)


def test_recalled_published_numbers_are_marked() -> None:
    """Of 331 numbers that were once recalled, sources confirm 130: all of RigL's on ImageNet,
    SNIP's dense networks, and 37 of the comparison on CIFAR."""
    recalled = {
        name: sum(
            len(source.values)
            for part in shipped(name).parts
            for source in part.published
            if source.recalled
        )
        for name in TABLES
    }
    assert {name: count for name, count in recalled.items() if count} == {
        "grasp_cifar": 174 - 37,
        "missing_the_mark_resnet20": 60,
        "strong_tickets": 4,
    }


def test_freezenet_and_snip_differ_only_in_the_values_of_untrained_weights() -> None:
    part = shipped("freezenet_mnist").parts[0]
    one, other = (
        {
            (c.column): dict(c.description["method"])
            for c in part.cells
            if c.row == (row,) and c.description
        }
        for row in ("SNIP", "FreezeNet")
    )
    for column in one:
        assert one[column].pop("base") == "zero" and other[column].pop("base") == "init"
        assert (
            one[column].pop("_target_") != other[column].pop("_target_")
            and one[column] == other[column]
        )
    assert round(430_500 * (1 - one["0.9936 (×157)",]["sparsity"])) == 2742
