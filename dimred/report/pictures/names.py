"""How pictures name settings and methods: titles, labels and file names."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

from dimred.errors import UserError
from dimred.report.compose import Json, composed, flat
from dimred.runs.config.files import AS_BEFORE, plain_numbers

#: the groups that tell methods apart; all others tell settings apart
OF_METHOD = ("method", "basis")
#: fields of the recipe that do, too: they change the time of a training, and what it computes only
#: by rounding
WAYS = ("arithmetic", "cache_frozen_mb", "cache_frozen_disk_mb", "skip_removed_channels")
#: fields that tell the points of a curve apart
OTHERS = ("method.sparsity", "seed")
MOST = 60  # letters of a file name

#: a setting: data set, model, and KEY=VALUE of all else; or a method: its name, and KEY=VALUE
Key = tuple[str, ...]


# -- values --------------------
def values_in(description: Json, of_method: bool) -> list[str]:
    """The values of a description, "recipe.lr=0.1", that tell methods apart, or settings."""
    values = {key: value for key, value in flat(description).items() if key not in OTHERS}
    # of these, a description has only what is unusual
    ways = {way: values.pop(f"recipe.{way}", AS_BEFORE["recipe"][way]) for way in WAYS}
    inside = {key: value for key, value in values.items() if key.partition(".")[0] in OF_METHOD}
    outside = {key: value for key, value in values.items() if key not in inside}
    chosen = inside | ways if of_method else outside
    return [
        f"{key.removesuffix('._target_')}={json.dumps(value)}"
        for key, value in sorted(chosen.items())
    ]


def differing(own: Sequence[str], all_of_them: Sequence[Sequence[str]]) -> str:
    """The values that tell a description from others: " (adam, lr=0.1)". Empty without others."""
    if len(all_of_them) == 1:
        return ""
    common = set.intersection(*map(set, all_of_them))
    parts = [name_of(text) for text in own if text not in common]
    return f" ({', '.join(parts) or 'older version'})"


def name_of(text: str) -> str:
    """Shorten KEY=VALUE: a word needs no key, as in "(snip, synflow)" of COPS; a number needs it,
    as in "lr=0.1"."""
    key, _, value = text.removeprefix("method.").partition("=")
    value = value.replace('"', "").removeprefix("[").removesuffix("]")
    if value.startswith("dimred."):
        value = value.rpartition(".")[2]
    alone = (
        value[:1].isalpha() and key not in WAYS and value not in ("none", "null", "true", "false")
    )
    return value if alone else f"{key}={value}"


def plain(text: object, most: int = 40) -> str:
    """A printable name of limited length, from any text of a file."""
    shown = str(text)
    if not shown.isprintable():
        shown = "".join(map(printable_letter, shown))
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def layer_name(text: object) -> str:
    """The name of a layer in a file of a run, in full: two layers never have one name."""
    return plain(text, 200)


def printable_letter(letter: str) -> str:
    return letter if letter.isprintable() else "?"


# -- settings --------------------
class Names(NamedTuple):
    """Of a setting. apart: what tells it from others of the same data set and model, or empty."""

    title: str
    apart: str
    slug: str  # for file names


def titles(keys: Iterable[Key]) -> dict[Key, Names]:
    """The names of each setting."""
    keys, used = sorted(keys), set[str]()
    found = {}
    for key in keys:
        name = file_name(key)
        if name in used:  # what differs is no letter of a file name
            name = f"{name}-{digest(key)}"
        used.add(name)
        apart = differing(key[2:], [k[2:] for k in keys if k[:2] == key[:2]])
        title = plain(", ".join(filter(None, key[:2])) + apart, 120)
        found[key] = Names(title, plain(apart.strip(" ()"), 120), name)
    return found


def file_name(key: Key) -> str:
    """Data set, model, and what is not as their files have it: digits-lenet300-lr_0.05. It depends
    on this setting alone, so a picture keeps its name when other runs are added. A digest replaces
    what is too long, or unknown."""
    dataset, model, *values = key
    usual = usual_values(dataset, model)
    changed = [] if usual is None else [text for text in values if comparable(text) not in usual]
    texts = [dataset, model, *(text.removeprefix("recipe.") for text in changed)]
    parts = [re.sub("[^A-Za-z0-9.-]+", "_", text).strip("_") for text in texts if text]
    kept = [*parts]
    while len(kept) > 2 and len("-".join(kept)) > MOST:
        kept.pop()
    if usual is None or kept != parts:
        kept.append(digest(key))
    return "-".join(kept)


def digest(key: Key) -> str:
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:6]


@cache
def usual_values(dataset: str, model: str) -> frozenset[str] | None:
    """The values of `dimred train dataset=DATASET model=MODEL`, or None if these are not names of
    dimred's files. A name may be missing."""
    chosen = {group: name for group, name in (("dataset", dataset), ("model", model)) if name}
    try:
        return frozenset(map(comparable, values_in(composed(chosen), of_method=False)))
    except UserError:
        return None


def comparable(text: str) -> str:
    """KEY=VALUE, where 1 and 1.0 are the same."""
    key, _, value = text.partition("=")
    return f"{key}={json.dumps(plain_numbers(json.loads(value)))}"


# -- methods --------------------
def labels_of(keys: Iterable[Key]) -> dict[Key, str]:
    """The labels of names with values: the name, and what tells it from others of that name."""
    keys, labels = list(keys), dict[Key, str]()
    for key in keys:
        alike = [other[1:] for other in keys if other[0] == key[0]]
        label = plain(key[0] + differing(key[1:], alike), 60)
        while label in labels.values():  # the difference was cut off
            label += "'"
        labels[key] = label
    return labels
