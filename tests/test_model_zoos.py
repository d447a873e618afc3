"""Models of timm, torchvision and transformers, and files of their weights."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from conftest import compose
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification

from dimred.errors import UserError
from dimred.runs.build import build
from dimred.runs.nets import build_net, plain_model

SHAPE = (3, 32, 32)
TINY_VIT = {
    "patch_size": 4,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def built(
    model: str, shape: tuple[int, int, int] = SHAPE, classes: int = 10, **knobs: Any
) -> nn.Module:
    cfg = compose(f"model={model}")
    for key, value in knobs.items():
        cfg.model[key] = value
    return build(cfg.model, "model", shape=shape, classes=classes).eval()


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


# -- timm ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["test_vit", "test_vit2", "test_mambaout", "test_efficientnet"])
def test_files_are_loaded_as_timm_loads_them_into_a_model_of_other_size_and_head(
    name: str, tmp_path: Path
) -> None:
    """Position embeddings of 40 x 40 patches become those of 8 x 8; the head stays as drawn."""
    published = timm.create_model(name)
    file = tmp_path / "published.safetensors"
    save_file(state_of(published), file)
    size = {"img_size": (128, 128)} if "vit" in name else {}
    theirs = timm.create_model(
        name,
        pretrained=True,
        pretrained_cfg_overlay={"file": str(file)},
        num_classes=10,
        **size,
    ).state_dict()
    ours = built("timm", (3, 128, 128), name=name, pretrained=str(file)).state_dict()
    for key, value in theirs.items():
        assert key.startswith(("head.", "classifier.")) or torch.equal(ours[key], value), key


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module."])
def test_wrappers_leave_no_trace_in_a_checkpoint_of_timm(prefix: str, tmp_path: Path) -> None:
    saved = state_of(timm.create_model("test_resnet", num_classes=10))
    wrapped = {f"{prefix}{name}": value for name, value in saved.items()}
    torch.save({"state_dict": wrapped, "epoch": 3}, tmp_path / "last.pt")
    found = built("timm", name="test_resnet", pretrained=str(tmp_path / "last.pt")).state_dict()
    assert all(torch.equal(found[name], value) for name, value in saved.items())


def test_both_classifiers_of_a_distilled_model_are_new_for_other_classes(tmp_path: Path) -> None:
    small = {"embed_dim": 16, "depth": 1, "num_heads": 2}
    name = "deit_tiny_distilled_patch16_224"
    published = state_of(timm.create_model(name, **small))
    save_file(published, tmp_path / "deit.safetensors")
    file = str(tmp_path / "deit.safetensors")
    found = built("timm", (3, 224, 224), name=name, options=small, pretrained=file).state_dict()
    assert found["head.weight"].shape == found["head_dist.weight"].shape == (10, 16)
    same = [key for key in published if not key.startswith("head")]
    assert all(torch.equal(found[key], published[key]) for key in same)


def test_published_weights_are_read_from_the_cache_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    knobs = {"name": "test_resnet", "pretrained": "r160_in1k"}
    with pytest.raises(UserError, match=r"Cannot load timm's test_resnet r160_in1k.*PATH.safet"):
        built("timm", **knobs)
    repository = tmp_path / "models--timm--test_resnet.r160_in1k"
    (repository / "snapshots" / "abc").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    published = state_of(timm.create_model("test_resnet"))
    save_file(published, repository / "snapshots" / "abc" / "model.safetensors")
    assert torch.equal(
        built("timm", **knobs).state_dict()["conv1.0.weight"], published["conv1.0.weight"]
    )


@pytest.mark.parametrize(
    ("model", "knobs", "message"),
    [
        ("timm", {"name": "resnet81"}, r"Unknown timm model model.name='resnet81'. Did you mean"),
        ("timm", {"pretrained": "a1_in1"}, r"no weights model.pretrained='a1_in1'. Did .*'a1_in1k"),
        (
            "timm",
            {"name": "test_vit", "options": {"patch_sze": 4}},
            r"timm's test_vit has no model.options.patch_sze .*Correct its name or leave it out",
        ),
        (
            "timm",
            {"name": "test_vit", "options": {"drop_rate": 0.1, "patch_size": 0}},
            r"test_vit cannot be built with model.options.patch_size=0 \(Zero.*another value",
        ),
        (
            "timm",
            {"name": "test_vit", "options": {"patch_size": 0}, "pretrained": "r160_in1k"},
            r"test_vit cannot be built with model.options.patch_size=0 \(Zero.*another value",
        ),
        (
            "timm",
            {"name": "test_vit", "options": {"num_heads": 7, "depth": "two"}},
            r"with model.options.num_heads=7 and model.options.depth=two \(",
        ),
        (
            "timm",
            {"name": "test_efficientnet", "options": {"act_layer": "rely"}},
            r"test_efficientnet cannot be built with model.options.act_layer=rely \(KeyError",
        ),
        (
            "huggingface",
            {"options": {"num_hidden_layers": 1, "hidden_size": 7}},
            r"with model.options.hidden_size=7 .*another value",
        ),
        ("huggingface", {"name": "vitt"}, r"no image classifier model.name='vitt'. Did you.*'vit'"),
        ("huggingface", {"name": "bert"}, r"no image classifier model.name='bert'"),
        (
            "huggingface",
            {"options": {"hidden_sze": 3}},
            r"vit has no model.options.hidden_sze. Did you mean 'hidden_size'",
        ),
        (
            "huggingface",
            {"options": {"patch_size": 0}},
            r"transformers' vit cannot be built with model.options.patch_size=0 .*another value",
        ),
        ("huggingface", {"path": "nowhere"}, r"model.path=nowhere has no config.json"),
    ],
)
def test_what_cannot_be_built_is_refused_with_what_is_allowed(
    model: str, knobs: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        built(model, **knobs)


@pytest.mark.parametrize(("model", "package"), [("timm", "timm"), ("huggingface", "transformers")])
def test_a_missing_package_is_one_line_that_names_the_extra(
    model: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"^model={model} needs {package}, .*'dimred\[{model}\]'$"):
        built(model)


# -- torchvision and dimred's own ----------------------------------------------------------------
@pytest.mark.parametrize(
    ("model", "name", "knobs"),
    [
        ("torchvision", "encoder.pos_embedding", {"name": "vit_b_32"}),
        ("vit", "positions", {"depth": 1, "patch": 4}),
    ],
)
def test_position_embeddings_are_resized_as_timm_does(
    model: str, name: str, knobs: dict[str, Any], tmp_path: Path
) -> None:
    size = 32 if model == "torchvision" else 4
    saved = state_of(built(model, (3, 3 * size, 3 * size), init="torch_default", **knobs))
    torch.nn.init.normal_(saved[name])
    save_file(saved, tmp_path / "saved.safetensors")
    file = str(tmp_path / "saved.safetensors")
    found = built(model, (3, 5 * size, 5 * size), init="torch_default", pretrained=file, **knobs)
    expected = resample_abs_pos_embed(saved[name], [5, 5])
    torch.testing.assert_close(found.state_dict()[name], expected)


def test_a_model_whose_modules_have_versions_comes_back_plain() -> None:
    """MNASNet loads no state dict without the version of its module."""
    cfg = compose("model=torchvision", "model.name=mnasnet0_5")
    net, images = build_net(cfg, SHAPE, 10), torch.rand(2, *SHAPE)
    net.train(False)
    assert torch.equal(plain_model(net)(images), net(images))


# -- transformers --------------------------------------------------------------------------------
def test_a_folder_of_transformers_gives_the_logits_that_transformers_computes(
    tmp_path: Path,
) -> None:
    """The folder also names code, which is not run."""
    theirs = ViTForImageClassification(ViTConfig(num_labels=10, image_size=32, **TINY_VIT)).eval()
    theirs.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["auto_map"] = {"AutoModelForImageClassification": "evil.Model", "AutoConfig": "evil.C"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text("open('the-code-ran', 'w')")
    cfg = compose("model=huggingface")
    cfg.model.path, cfg.model.pretrained = str(tmp_path), str(tmp_path / "model.safetensors")
    net, images = build_net(cfg, SHAPE, 10), torch.rand(3, *SHAPE)
    net.train(False)
    torch.testing.assert_close(net(images), theirs(images).logits)
    assert not Path("the-code-ran").exists()


def test_options_change_the_configuration_of_a_type() -> None:
    model = built("huggingface", options=TINY_VIT)
    assert model.vit.embeddings.position_embeddings.shape == (1, 1 + 8 * 8, 16)
    assert model.classifier.weight.shape == (10, 16)
