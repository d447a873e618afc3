"""Reads labelled texts and turns them into token numbers."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dimred.data.files import reading, require_regular
from dimred.data.layout import split_of
from dimred.errors import UserError, extra

KINDS = (".jsonl", ".csv")
EXPECTED = "train.jsonl (or .csv), test.jsonl and maybe val.jsonl"


class Row(NamedTuple):
    text: str
    label: str


def rows_of(path: Path) -> dict[str, list[Row]]:
    """The examples of "train", "val" and "test" in a folder or a file; without a test set, val is
    the test set. UserError if there is no train set, or two of a kind."""
    require_regular(path)
    if path.is_file():
        return {"train": list(rows_in(path))}
    files = dict[str, Path]()
    with reading(path):
        found = sorted(each for each in path.iterdir() if each.suffix in KINDS)
    for file in found:
        split = split_of(file.stem)
        if not split or split in files:
            raise UserError(
                f"{path} has the files {', '.join(each.name for each in found)}; expected are "
                f"{EXPECTED}. Rename or remove the others."
            )
        files[split] = file
    if "test" not in files and "val" in files:
        files["test"] = files.pop("val")
    if "train" not in files:
        raise UserError(f"{path} has no train set; expected are {EXPECTED}.")
    return {split: list(rows_in(file)) for split, file in files.items()}


def rows_in(path: Path) -> Iterator[Row]:
    """The rows of a file. UserError, which names the line, for one without text and label."""
    with reading(path, ValueError, csv.Error), path.open(encoding="utf-8", newline="") as file:
        lines: Any = csv.DictReader(file) if path.suffix == ".csv" else map(json.loads, file)
        for number, row in enumerate(lines, 1 + (path.suffix == ".csv")):
            text, label = (row.get(key) for key in Row._fields) if is_row(row) else (None, None)
            if not isinstance(text, str) or not isinstance(label, (str, int)):
                raise UserError(
                    f"{path}, line {number}, has no text and label. A line of .jsonl is "
                    '{"text": "...", "label": "..."}; the first line of .csv is text,label.'
                )
            yield Row(text, str(label))


def is_row(row: Any) -> bool:
    return isinstance(row, Mapping)


def tokenised(texts: list[str], file: Path, length: int, vocabulary: int) -> np.ndarray:
    """Token numbers plus one, int64 (n, length), filled up with 0."""
    tokenizers = extra("tokenizers", "huggingface", "dataset=text")
    if not file.is_file():
        raise UserError(
            f"There is no {file}. Put the tokenizer.json of Hugging Face's tokenizers there, or "
            "name it: dataset.tokenizer=..."
        )
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the package raises Exception itself
        raise UserError(f"{file} is no tokenizer.json of Hugging Face ({error}).") from error
    if (needed := tokenizer.get_vocab_size() + 1) > vocabulary:
        raise UserError(
            f"dataset.vocabulary={vocabulary} is too small for {file}, which has {needed - 1} "
            f"tokens. Set dataset.vocabulary={needed} or more."
        )
    tokenizer.no_padding()
    tokenizer.no_truncation()
    rows = np.zeros((len(texts), length), np.int64)
    for row, encoded in zip(rows, tokenizer.encode_batch(texts), strict=True):
        numbers = np.array(encoded.ids[:length], np.int64) + 1
        row[: len(numbers)] = numbers
    return rows
