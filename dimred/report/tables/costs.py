"""What the missing runs of a table will cost, judged by finished runs."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from dimred.errors import counted
from dimred.report.compose import Json, size_of
from dimred.report.measures import number
from dimred.report.runs import Run, key
from dimred.report.tables.fill import model_and_data
from dimred.report.tables.plan import Job

#: what must agree for costs to be proportional to the length of training
Alike = tuple[object, ...]


def estimate(jobs: Sequence[Job], runs: Iterable[Run]) -> str:
    """The cost of the jobs, judged by finished runs, or `unknown` where there are none."""
    if not jobs:
        return "no runs are missing"
    done = [run for run in runs if run.state == "done"]
    seconds, flops = Costs("seconds", done), Costs("training_flops", done)
    return (
        f"{counted(len(jobs), 'run')} to do: {lengths(jobs)} (methods with several rounds train "
        "longer)\n"
        f"time: {total(map(seconds.of, jobs), clock)}\n"
        f"training FLOPs: {total(map(flops.of, jobs), '{:.2e}'.format)}"
    )


def longest_first(jobs: Sequence[Job], runs: Iterable[Run]) -> list[Job]:
    """The longest jobs first, so that no worker is left with one at the end. Jobs without a similar
    run to judge by come before them, by the length of their training: they may be long, too."""
    seconds = Costs("seconds", [run for run in runs if run.state == "done"])

    def order(job: Job) -> tuple[bool, float]:
        found = seconds.of(job)
        return found is not None, -(training(job.wanted)[1] if found is None else found)

    return sorted(jobs, key=order)


class Costs:
    """A number of finished runs per epoch or step of their recipes."""

    def __init__(self, name: str, done: Iterable[Run]) -> None:
        self._of_method: dict[Alike, list[float]] = defaultdict(list)
        self._of_all: dict[Alike, list[float]] = defaultdict(list)
        for run in done:
            value, (alike, length) = number(run.result, name), training(run.description)
            if value is not None and length:
                self._of_method[method(run.description), alike].append(value / length)
                self._of_all[alike].append(value / length)

    def of(self, job: Job) -> float | None:
        """The median of the runs with the same model, data and kind of recipe (and the same method,
        if there are any), scaled to the length of the job."""
        alike, length = training(job.wanted)
        rates = self._of_method.get((method(job.wanted), alike)) or self._of_all.get(alike)
        return statistics.median(rates) * length if rates and length else None


def method(description: Json) -> object:
    return description["method"]["_target_"]


def training(description: Json) -> tuple[Alike, float]:
    """What must agree, and the length of training; 0 if it is not known."""
    recipe = description.get("recipe")
    if not isinstance(recipe, dict):
        return (), 0.0
    unit = "epochs" if recipe.get("steps") is None else "steps"
    batch = key({"batch_size": recipe.get("batch_size")})
    return (*model_and_data(description), unit, batch), number(recipe, unit) or 0.0


def total(costs: Iterable[float | None], text: Callable[[float], str]) -> str:
    found = list(costs)
    known = [value for value in found if value is not None]
    if not known:
        return "unknown (there are no runs of their models and data yet)"
    others = ""
    if len(known) < len(found):
        unknown = counted(len(found) - len(known), "run")
        others = f", and {unknown} without a similar run to judge by"
    return f"about {text(sum(known))} one after the other, judged by similar runs{others}"


def lengths(jobs: Iterable[Job]) -> str:
    """40 epochs of training each, 20400 in all; or the number of runs of each length."""
    found = Counter(size_of(job.wanted["recipe"]) for job in jobs)
    if len(found) > 1:
        return ", ".join(
            f"{n} times {size:g} {unit} of training" for (unit, size), n in found.most_common()
        )
    (unit, size), n = found.popitem()
    return f"{size:g} {unit} of training each, {size * n:g} in all"


def clock(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
