"""Token sequences: generated brackets, texts of files, and methods on a transformer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import compose
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor, nn

import dimred
from dimred.data import Brackets, Text
from dimred.data.base import Data
from dimred.errors import UserError
from dimred.models import text_transformer
from dimred.runs.nets import build_net
from dimred.training.flops import Costs

SIGNS = " ([)]"
WORDS = ["good", "bad", "film", "a"]


def brackets(count: int = 60, length: int = 8) -> Data:
    return Brackets(examples=(count, 20), length=length, vocabulary=5, val_fraction=0.1)


# -- brackets ------------------------------------------------------------------------------------
def closes(text: str) -> bool:
    """Whether all brackets vanish if neighbours that match are removed again and again."""
    for _ in text:
        text = text.replace("()", "").replace("[]", "")
    return not text


def test_labels_say_whether_the_brackets_are_balanced() -> None:
    data = brackets()
    seen = dict[str, bool]()
    for tokens, labels in data.eval_batches("train"):
        assert tokens.dtype == torch.float32 and tokens.shape[1:] == data.shape == (8,)
        for row, label in zip(tokens.int().tolist(), labels.tolist(), strict=True):
            seen["".join(SIGNS[token] for token in row).strip()] = bool(label)
    assert len(seen) > 20 and {len(text) for text in seen} == {4, 6, 8}
    for text, label in seen.items():
        assert closes(text) == label, text
        assert text.count("(") == text.count(")") and text.count("[") == text.count("]")


def test_the_order_of_an_epoch_is_a_function_of_seed_and_epoch() -> None:
    data = brackets()
    first = list(data.train_batches(16, 3, 1))
    assert len(first) == 54 // 16
    for (tokens, labels), (same, again) in zip(
        first[1:], data.train_batches(16, 3, 1, 1), strict=True
    ):
        assert torch.equal(tokens, same) and torch.equal(labels, again)
    other = next(data.train_batches(16, 3, 2))
    assert not torch.equal(first[0][0], other[0])
    everything = next(data.eval_batches("train"))[0]
    assert torch.equal(everything[data.plain_order(3, 1)[:16]], first[0][0])


# -- texts of files ------------------------------------------------------------------------------
@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tokenizer = Tokenizer(WordLevel({"?": 0, **{w: i for i, w in enumerate(WORDS, 1)}}, "?"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    rows = [("a good film", "pos"), ("bad", "neg"), ("a strange film", "pos"), ("bad a bad", "neg")]
    lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    (tmp_path / "test.csv").write_text('text,label\n"good, good",pos\n')
    return tmp_path


def text(path: Path, **knobs: Any) -> Text:
    fields = {"length": 3, "vocabulary": 6, "val_fraction": 0.0, "tokenizer": None}
    return Text(name="films", path=str(path), **{**fields, **knobs})


def test_texts_become_token_numbers_plus_one(folder: Path) -> None:
    """The tokenizer's numbers: ? 0, good 1, bad 2, film 3, a 4."""
    data = text(folder)
    tokens, labels = next(data.eval_batches("train"))
    assert tokens.tolist() == [[5, 2, 4], [3, 0, 0], [5, 1, 4], [3, 5, 3]]
    assert labels.tolist() == [1, 0, 1, 0] and data.classes == 2
    tokens, labels = next(data.eval_batches("test"))  # the comma is an unknown token
    assert (tokens.tolist(), labels.tolist()) == ([[2, 1, 2]], [1])


def test_a_single_file_gives_a_fifth_of_every_class_for_testing(folder: Path) -> None:
    rows = ["text,label", *(f"{WORDS[i % 4]},{i % 10}" for i in range(100))]
    (folder / "all.csv").write_text("\n".join(rows))
    data = text(folder / "all.csv", tokenizer=str(folder / "tokenizer.json"))
    assert (data.sizes["train"], data.sizes["test"], data.classes) == (80, 20, 10)
    _, labels = next(data.eval_batches("test"))
    assert labels.bincount().tolist() == [2] * 10


@pytest.mark.parametrize(
    ("file", "content", "knobs", "message"),
    [
        (
            "train.jsonl",
            '{"text": "a"}',
            {},
            r"train.jsonl, line 1, has no text and label\. A line",
        ),
        ("train.jsonl", "{", {}, r"train.jsonl.*JSONDecodeError"),
        ("test.csv", "text,label\na,odd", {}, r"a label in test of .*'odd'.* neg, pos"),
        ("test.csv", "words,label\na,pos", {}, r"test.csv, line 2, has no text and label"),
        ("more.jsonl", "", {}, r"has the files more.jsonl, test.csv, train.jsonl; expected are"),
        ("tokenizer.json", "{}", {}, r"tokenizer.json is no tokenizer.json of Hugging Face"),
        ("a", "", {"tokenizer": "b"}, r"There is no b\. Put the tokenizer.json"),
        (
            "a",
            "",
            {"vocabulary": 5},
            r"dataset.vocabulary=5 is too small .* 5 tokens\. Set .*=6 or",
        ),
        ("a", "", {"length": 0}, r"dataset.length=0 is not allowed"),
    ],
)
def test_what_cannot_be_read_is_named(
    file: str, content: str, knobs: dict[str, Any], message: str, folder: Path
) -> None:
    (folder / file).write_text(content)
    with pytest.raises(UserError, match=message):
        text(folder, **knobs)


# -- the transformer -----------------------------------------------------------------------------
def transformer(length: int = 6, **knobs: Any) -> nn.Module:
    fields: dict[str, Any] = {"vocabulary": 5, "dim": 8, "depth": 2, "heads": 2, "mlp": 2}
    return text_transformer(
        shape=(length,), classes=2, init="xavier_uniform", pretrained=None, **{**fields, **knobs}
    ).eval()


def test_what_follows_the_end_of_a_sequence_has_no_effect() -> None:
    model, tokens = transformer(), torch.tensor([[1.0, 2, 3, 0, 0, 0]])
    short = transformer(3)
    state = model.state_dict()
    state["positions"] = state["positions"][:, :4]
    short.load_state_dict(state)
    torch.testing.assert_close(model(tokens), short(tokens[:, :3]))


def test_embeddings_cost_nothing_and_attention_is_counted_whole() -> None:
    """Of 7 tokens, with the class token: 12 dim^2 weights a block, with an MLP of 4 dim, are
    multiplied at 7 tokens; q k^T and its product with v are 7 x 7 x dim each."""
    net = build_net(compose("dataset=brackets", "model.dim=8", "model.depth=1"), (6,), 2)
    assert set(net.weights) == {
        *(f"blocks.0.{name}.weight" for name in ("attention.qkv", "attention.out", "fc1", "fc2")),
        "head.weight",
    }
    forward = 2 * (7 * 12 * 8**2 + 2 * 7 * 7 * 8 + 8 * 2)
    costs = Costs(net, (6,))
    assert costs.dense_forward == forward
    # everything takes both gradients: what precedes the first product, embeddings, trains
    assert costs.dense_step == 3 * forward


def test_images_are_refused() -> None:
    with pytest.raises(UserError, match=r"classifies token sequences, got images of 3x8x8\. "):
        build_net(compose("dataset=brackets"), (3, 8, 8), 2)


def test_methods_of_every_kind_train_a_transformer_and_count_to_the_weight(tmp_path: Path) -> None:
    small = {"dataset.length": 6, "dataset.examples": (600, 200), "model.dim": 16}
    settings = {**small, "recipe.epochs": 1, "outputs": str(tmp_path), "sparsity": 0.8}
    for method, more in METHODS.items():
        result = dimred.train(method, dataset="brackets", **settings, **more)
        # FreezeNet has all weights, a supermask trains a score for each
        kept = min(result.dim, round(result.density * result.total))
        assert kept == round(0.2 * result.total), method
        model, tokens = result.model(), torch.tensor([[1.0, 3, 2, 4, 0, 0]])
        assert torch.equal(model(tokens), logits_of(result.net(), tokens)), method


METHODS: dict[str, dict[str, Any]] = {
    "snip": {},
    "freezenet": {},
    "rigl": {"method.update_every": 2},
    "imp": {"method.prune_rate": 0.6},
    "gmp": {},
    "edge_popup": {},
    "synflow": {"method.rounds": 5},
}


def logits_of(net: Any, tokens: Tensor) -> Tensor:
    net.train(False)
    return net(tokens)
