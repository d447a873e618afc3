"""What Hydra calls: the job, once for every combination of a sweep, and the table that closes the sweep."""
from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from dimred.configs import GROUPS
from dimred.errors import UserError
from dimred.printing import percent, summary, table

errors: list[UserError] = []    # of the single run; in a sweep they are rows of its table
failed: list[str] = []          # of the sweep


def job(cfg: DictConfig) -> None:
    """One run. An error of one does not stop a sweep; it is written to the sweep's folder, as a result is."""
    from dimred.run import readable, run  # here, so that mistakes in the command are answered before torch is imported

    hydra = HydraConfig.get()
    choices = {group: str(hydra.runtime.choices.get(group)) for group in GROUPS}
    overrides: Any = OmegaConf.to_container(hydra.overrides.task)    # as they were typed
    explicit = {override.lstrip("+").partition("=")[0] for override in overrides}
    outcome: dict[str, Any] = {"overrides": overrides}
    try:
        outcome |= run(cfg, choices, explicit)
    except Exception as exception:
        error = readable(exception)
        if hydra.mode != RunMode.MULTIRUN:
            errors.append(error)
            return
        logging.getLogger("dimred").error("%s", error)
        outcome |= {"status": "failed", "reason": str(error)}
    else:
        print(summary(outcome), flush=True)
    if hydra.mode == RunMode.MULTIRUN:
        folder = Path(hydra.sweep.dir).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{hydra.job.num}.json").write_text(json.dumps(outcome))


class SweepTable(Callback):
    """Closes a sweep with a table: what was reached, and what failed and why."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        files = sorted(Path(config.hydra.sweep.dir).expanduser().glob("*.json"), key=lambda path: int(path.stem))
        outcomes = [json.loads(path.read_text()) for path in files]
        failed.extend(o["reason"] for o in outcomes if o["status"] != "done")
        shared = set.intersection(*(set(o["overrides"]) for o in outcomes)) if len(outcomes) > 1 else set()
        print("\n" + table(("run", "test accuracy", "trained", "nonzero", "outcome"), [
            (" ".join(override for override in o["overrides"] if override not in shared),
             percent(o.get("test_accuracy")), o.get("dim", ""), percent(o.get("density")),
             o["folder"] if o["status"] == "done" else f"FAILED: {o['reason']}") for o in outcomes]))
        print(f"{len(outcomes)} runs, {len(failed)} failed")


def close() -> int:
    """The exit status of what Hydra has called since the last time; raises the error of a single run."""
    status = 1 if failed else 0
    failed.clear()
    if errors:
        raise errors.pop()
    return status
