"""dimred methods: what there is to choose from."""
from __future__ import annotations

import json

from dimred.commands.arguments import flag
from dimred.configs import describe_method, names
from dimred.printing import table


def methods(arguments: list[str]) -> int:
    rows = [describe_method(name) for name in names("method")]
    rows.sort(key=lambda row: (row["family"], row["name"]))
    if flag(arguments, "--json"):
        print(json.dumps(rows, indent=2))
    else:
        print(table(("method", "family", "what it does", "source"),
                    [(r["name"], r["family"], r["summary"], r["source"]) for r in rows]))
    return 0

