"""Data sets of token sequences in memory: a generated one, and texts of files.

An example is a row of token numbers, as floats like the values of an image; those below 2^24 are
exact. 0 fills up rows that are shorter than others.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dimred.data.arrays import Examples, classes_of
from dimred.data.base import (
    EPOCH,
    ITEM,
    Batches,
    Data,
    generator,
    held_out,
    log_notes,
    require_examples,
    require_range,
)
from dimred.data.texts import Row, rows_of, tokenised
from dimred.errors import require


@dataclass(kw_only=True)
class Tokens(Data):
    """Sequences of token numbers. Subclasses implement `read`.

    length: tokens of an example
    vocabulary: how many token numbers there are, 0 included; the embedding of a model has as many
    val_fraction: of the training examples, held out for validation if there is no validation set
    """

    length: int
    vocabulary: int
    val_fraction: float

    @abstractmethod
    def read(self) -> tuple[Examples, ...]:
        """The training and the test set, or the training, validation and test set: tokens (n,
        length) in place of images."""

    def __post_init__(self) -> None:
        require(self.length > 0, "dataset.length", self.length, "1 or more tokens")
        require_range(
            val_fraction=(self.val_fraction, 0, 1), vocabulary=(self.vocabulary, 2, 2**24)
        )
        parts = self.read()
        train, *own, test = parts
        if own:
            val = own[0]
        else:
            keep, held = held_out(train.labels.numpy(), self.val_fraction)
            train, val = train.at(keep), train.at(held)
        whole = {"train": train, "val": val, "test": test}
        self.sizes = {split: len(part.labels) for split, part in whole.items()}
        require_examples(self.name, self.sizes)
        self.classes, notes = classes_of(parts)
        log_notes(self.name, notes)
        self.shape = (self.length,)
        self.splits = {
            split: Examples(part.images.float(), part.labels) for split, part in whole.items()
        }

    def to(self, device: torch.device) -> Tokens:
        moved = copy.copy(self)
        moved.splits = {
            split: Examples(part.images.to(device), part.labels.to(device))
            for split, part in self.splits.items()
        }
        return moved

    def train_batches(self, batch_size: int, seed: int, epoch: int, start: int = 0) -> Batches:
        tokens, labels = self.splits["train"]
        order = self.plain_order(seed, epoch)
        for step in range(start, self.steps_per_epoch(batch_size)):
            chosen = order[step * batch_size : (step + 1) * batch_size]
            yield tokens[chosen], labels[chosen]

    def plain_order(self, seed: int, epoch: int) -> Tensor:
        order = generator(EPOCH, seed, epoch).permutation(self.sizes["train"])
        return torch.from_numpy(order).to(self.splits["train"].labels.device)

    def eval_batches(self, split: str, batch_size: int = 1024) -> Batches:
        tokens, labels = self.splits[split]
        yield from zip(tokens.split(batch_size), labels.split(batch_size), strict=True)

    def sample(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        tokens, labels = self.splits["train"]
        chosen = torch.from_numpy(self.choose(n, seed)).to(labels.device)
        return tokens[chosen], labels[chosen]


# -- generated --------------------
OPEN, CLOSE = (1, 2), (3, 4)  # ( [ and ) ]


@dataclass(kw_only=True)
class Brackets(Tokens):
    """Are the brackets balanced? Strings of ( ) [ ] of random even lengths; in half of them, two
    brackets of a balanced string are swapped so that it is balanced no longer.

    examples: in the training and the test set
    """

    name = "brackets"
    examples: tuple[int, int]

    def read(self) -> tuple[Examples, ...]:
        require(self.length >= 4, "dataset.length", self.length, "4 or more brackets")
        require(self.vocabulary >= 5, "dataset.vocabulary", self.vocabulary, "5 or more")
        return tuple(self.drawn(split, count) for split, count in enumerate(self.examples))

    def drawn(self, split: int, count: int) -> Examples:
        draws = generator(ITEM, split)
        tokens, labels = np.zeros((count, self.length), np.int64), np.arange(count) % 2
        for row, label in zip(tokens, labels, strict=True):
            size = 2 * int(draws.integers(2, self.length // 2 + 1))
            row[:size] = balanced(size, draws)
            while not label and is_balanced(row):
                one, other = draws.choice(size, 2, replace=False)
                row[[one, other]] = row[[other, one]]
        return Examples(torch.from_numpy(tokens), torch.from_numpy(labels))


def balanced(size: int, draws: np.random.Generator) -> list[int]:
    """A balanced string of so many brackets."""
    row, waiting = list[int](), list[int]()
    while len(row) < size:
        may_open = len(row) + len(waiting) < size
        if may_open and (not waiting or draws.random() < 0.5):
            kind = int(draws.integers(2))
            waiting.append(kind)
            row.append(OPEN[kind])
        else:
            row.append(CLOSE[waiting.pop()])
    return row


def is_balanced(row: np.ndarray) -> bool:
    waiting = list[int]()
    for token in row[row > 0].tolist():
        if token in OPEN:
            waiting.append(OPEN.index(token))
        elif not waiting or CLOSE[waiting.pop()] != token:
            return False
    return not waiting


# -- of files --------------------
@dataclass(kw_only=True)
class Text(Tokens):
    """Texts with labels, in .jsonl or .csv, by a tokenizer.json of Hugging Face's tokenizers. Token
    i of the tokenizer is i + 1; longer texts are cut.

    path: a folder with train, test and maybe val, such as train.jsonl, or a single file, of which a
        fifth of every class is the test set
    tokenizer: the tokenizer.json; null: that in the folder
    """

    name: str
    path: str
    tokenizer: str | None

    def read(self) -> tuple[Examples, ...]:
        path = Path(self.path).expanduser()
        splits = rows_of(path)
        names = sorted({row.label for row in splits["train"]}, key=by_number)
        file = Path(self.tokenizer).expanduser() if self.tokenizer else path / "tokenizer.json"
        self.read_from = (file,)
        examples = {
            split: self.examples_of(split, rows, names, file) for split, rows in splits.items()
        }
        if "test" in examples:
            return tuple(examples[role] for role in ("train", "val", "test") if role in examples)
        whole = examples["train"]
        keep, held = held_out(whole.labels.numpy(), 1 / 5)
        return whole.at(keep), whole.at(held)

    def examples_of(self, split: str, rows: list[Row], names: list[str], file: Path) -> Examples:
        numbers = {label: number for number, label in enumerate(names)}
        for row in rows:
            require(
                row.label in numbers,
                f"a label in {split} of {self.path}",
                repr(row.label),
                f"one of the training examples' {', '.join(names)}",
            )
        tokens = tokenised([row.text for row in rows], file, self.length, self.vocabulary)
        labels = np.array([numbers[row.label] for row in rows], np.int64)
        return Examples(torch.from_numpy(tokens), torch.from_numpy(labels))


def by_number(label: str) -> tuple[int, str]:
    """Sorts whole numbers by value, before words."""
    return (int(label), "") if label.isdecimal() else (2**62, label)
