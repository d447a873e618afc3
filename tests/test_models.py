"""Networks: their sizes, their initial weights, and errors for unsuitable images or files."""

from __future__ import annotations

import copy
import inspect
import logging
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import get_method, instantiate
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.func import functional_call

from dimred.errors import UserError
from dimred.models.pretrained import unwrapped
from dimred.net.plain_products import plain_kernels

CONF = Path(__file__).parents[1] / "conf" / "model"
NAMES = sorted(file.stem for file in CONF.glob("*.yaml"))
MNIST, CIFAR, DIGITS = (1, 28, 28), (3, 32, 32), (1, 8, 8)
# the smallest images of every network that is not torchvision's
SMALLEST = {
    "lenet300": 1,
    "mlp": 1,
    "lenet": 16,
    "lenet5": 16,
    "conv2": 2,
    "conv4": 4,
    "conv6": 8,
    "conv8": 16,
    "mobilenet": 8,
    "resnet18": 8,
    "resnet20": 4,
    "resnet32": 4,
    "resnet56": 4,
    "resnet110": 4,
    "wrn22_2": 4,
    "wrn28_2": 4,
    "vgg11": 16,
    "vgg13": 16,
    "vgg16": 16,
    "vgg19": 16,
    "vit": 2,
}
FAMILIES = [
    "lenet300",
    "lenet5",
    "conv2",
    "vgg11",
    "resnet20",
    "wrn22_2",
    "mobilenet",
    "vit",
    "torchvision",
]


def build(
    config: str,
    /,
    shape: tuple[int, int, int] = CIFAR,
    classes: int = 10,
    seed: int = 0,
    **knobs: Any,
) -> nn.Module:
    torch.manual_seed(seed)
    merged = OmegaConf.merge(OmegaConf.load(CONF / f"{config}.yaml"), knobs)
    try:
        return instantiate(merged, shape=shape, classes=classes)
    except InstantiationException as error:  # Hydra's wrapping of what the builder raised
        raise (error.__cause__ or error) from None


def sketch(config: str, /, *args: Any, **knobs: Any) -> nn.Module:
    """The model without its numbers."""
    with torch.device("meta"):
        return build(config, *args, **knobs)


def weights(model: nn.Module) -> int:
    return sum(m.weight.numel() for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear)))


def equal(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def save(model: nn.Module, path: Path) -> str:
    save_file(model.state_dict(), path)
    return str(path)


# -------------------------------------------------------------------------------------------------
# networks
@pytest.mark.parametrize(
    ("name", "shape", "knobs", "count"),
    [
        ("lenet300", MNIST, {}, 266_200),
        ("lenet5", MNIST, {}, 430_500),
        ("vgg16", CIFAR, {}, 14_715_584),
        ("vgg19", CIFAR, {}, 20_024_000),
        ("resnet20", CIFAR, {}, 270_896),
        ("resnet20", CIFAR, {"shortcut": "pad"}, 268_336),
        ("resnet32", CIFAR, {"width": 2}, 1_855_584),
    ],
)
def test_networks_have_the_published_number_of_weights(
    name: str, shape: tuple[int, int, int], knobs: dict[str, Any], count: int
) -> None:
    assert weights(sketch(name, shape, **knobs)) == count


@pytest.mark.parametrize(
    ("name", "knobs", "count"),
    [
        ("wrn28_2", {}, 1_467_610),
        ("wrn28_2", {"width": 10}, 36_479_194),
        ("resnet110", {"shortcut": "pad"}, 1_727_962),
        ("resnet18", {}, 11_173_962),
        ("mobilenet", {}, 3_217_226),
        ("torchvision", {}, 11_181_642),
    ],
)
def test_networks_have_the_published_number_of_parameters(
    name: str, knobs: dict[str, Any], count: int
) -> None:
    assert sum(p.numel() for p in sketch(name, **knobs).parameters()) == count


def test_a_vision_transformer_has_twelve_squares_of_its_width_in_a_block() -> None:
    """Queries, keys, values and output, and an MLP four times as wide: 4 + 8. Then patches and
    head."""
    model = sketch("vit", DIGITS, dim=32, depth=3)
    assert weights(model) == 3 * 12 * 32**2 + 2 * 2 * 32 + 32 * 10
    assert model.positions.shape == (1, 1 + 4 * 4, 32)
    assert sketch("vit").positions.shape == (1, 1 + 8 * 8, 64)


def test_a_vision_transformer_is_attention_written_out() -> None:
    """As torch's encoder layer, whose matrices are named otherwise."""
    block = build("vit", DIGITS, patch=2, dim=32, depth=1).blocks[0]
    layer = nn.TransformerEncoderLayer(32, 4, 128, 0.0, "gelu", batch_first=True, norm_first=True)
    names = {
        "attention.qkv.": "self_attn.in_proj_",
        "attention.out.": "self_attn.out_proj.",
        "fc": "linear",
    }
    state = block.state_dict()
    for ours, theirs in names.items():
        state = {name.replace(ours, theirs): value for name, value in state.items()}
    layer.load_state_dict(state)
    tokens = torch.randn(2, 5, 32)
    torch.testing.assert_close(block(tokens), layer(tokens))


@pytest.mark.parametrize("name", SMALLEST)
def test_each_config_states_the_right_number_of_weights_and_smallest_image(name: str) -> None:
    text = (CONF / f"{name}.yaml").read_text()
    counts = re.findall(r"([\d,]+) weights on (MNIST|CIFAR-10)", text)
    assert (
        [int(count.replace(",", "")) for count, _ in counts]
        == [weights(sketch(name, MNIST if dataset == "MNIST" else CIFAR)) for _, dataset in counts]
        != []
    )
    assert f"Images of {SMALLEST[name]} x {SMALLEST[name]} or more." in text or SMALLEST[name] == 1


@pytest.mark.parametrize("name", NAMES)
def test_config_lists_exactly_the_parameters_of_its_builder(name: str) -> None:
    config = OmegaConf.load(CONF / f"{name}.yaml")
    parameters = inspect.signature(get_method(config._target_)).parameters.values()
    assert {str(key) for key in config} - {"_target_"} == {p.name for p in parameters} - {
        "shape",
        "classes",
    }
    assert all(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_maps_images_to_one_logit_per_class_and_ends_in_a_linear(name: str) -> None:
    model = build(name, (3, 33, 36), classes=7)
    assert model(torch.randn(2, 3, 33, 36)).shape == (2, 7)
    last = list(model.modules())[-1]
    assert isinstance(last, nn.Linear) and last.out_features == 7


@pytest.mark.parametrize("name", SMALLEST)
def test_smallest_images_work_in_any_number_of_channels_and_smaller_ones_are_refused(
    name: str,
) -> None:
    size = SMALLEST[name]
    sketch(name, (2, size, size + 3)).eval()(torch.randn(1, 2, size, size + 3, device="meta"))
    if size > 1:
        with pytest.raises(
            UserError,
            match=rf"at least {size}x{size} pixels, got {size - 1}x{size}.*resize={size} ",
        ):
            build(name, (2, size - 1, size))


@pytest.mark.parametrize("name", ["lenet300", "conv6", "resnet20", "resnet18", "wrn22_2"])
def test_eight_by_eight_digits_are_large_enough(name: str) -> None:
    assert build(name, DIGITS)(torch.randn(2, *DIGITS)).shape == (2, 10)


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_can_be_differentiated_again(name: str) -> None:
    model = build(name)
    params = list(model.parameters())
    with plain_kernels(model):
        grads = torch.autograd.grad(
            model(torch.randn(4, *CIFAR)).logsumexp(1).sum(), params, create_graph=True
        )
        norm = torch.stack([(grad * grad).sum() for grad in grads]).sum()
        second = torch.autograd.grad(norm, params, allow_unused=True)
    used = [grad for grad in second if grad is not None]
    assert all(grad.isfinite().all() for grad in used) and any(grad.any() for grad in used)


@pytest.mark.parametrize("name", ["lenet5", "resnet20", "wrn22_2"])
def test_networks_can_be_copied_and_called_with_other_weights(name: str) -> None:
    model, images = build(name).eval(), torch.randn(2, *CIFAR)
    other = {key: value + 0.01 for key, value in model.named_parameters()}
    twin = copy.deepcopy(model)
    twin.load_state_dict(other, strict=False)
    assert torch.equal(functional_call(model, other, images), twin(images))
    assert not torch.equal(model(images), twin(images))


def test_shortcut_without_weights_appends_zero_channels_to_every_other_pixel() -> None:
    block = build("resnet20", shortcut="pad").get_submodule("stage2.0.shortcut")
    images = torch.randn(2, 16, 8, 8)
    assert torch.equal(block(images)[:, :16], images[:, :, ::2, ::2])
    assert block(images).shape == (2, 32, 4, 4) and not block(images)[:, 16:].any()


# -------------------------------------------------------------------------------------------------
# starting weights
@pytest.mark.parametrize("name", FAMILIES)
def test_weights_are_a_function_of_the_seed(name: str) -> None:
    one = build(name)
    assert equal(one, build(name, seed=0)) and not equal(one, build(name, seed=1))


def deviation(init: str) -> tuple[float, float]:
    """Empirical standard deviation and largest entry of a 300 x 3072 weight drawn by `init`."""
    weight: Tensor = build("lenet300", init=init).get_submodule("fc1").weight  # type: ignore[assignment]
    return weight.std().item(), weight.abs().max().item()


@pytest.mark.parametrize(
    ("init", "expected"),
    [
        ("kaiming_normal", (2 / 3072) ** 0.5),
        ("kaiming_uniform", (2 / 3072) ** 0.5),
        ("xavier_normal", (2 / 3372) ** 0.5),
        ("xavier_uniform", (2 / 3372) ** 0.5),
        ("torch_default", (1 / 3 / 3072) ** 0.5),
    ],
)
def test_initialisation_has_the_variance_of_its_name(init: str, expected: float) -> None:
    std, largest = deviation(init)
    assert std == pytest.approx(expected, rel=0.01)
    assert (largest > 1.8 * expected) == ("normal" in init)


def test_biases_start_at_zero_unless_torch_chooses_them() -> None:
    biases = [p for key, p in build("conv2", DIGITS).named_parameters() if key.endswith("bias")]
    assert biases and not any(bias.any() for bias in biases)
    assert build("lenet300", init="torch_default").get_submodule("fc1").bias.any()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("name", "knobs", "message"),
    [
        (
            "lenet300",
            {"init": "xavier_norml"},
            "Unknown model.init='xavier_norml'. Did you mean 'xavier_normal'",
        ),
        ("resnet20", {"shortcut": "con"}, "Unknown model.shortcut='con'. Did you mean 'conv'"),
        ("resnet20", {"depth": 21}, "resnet has no depth 21. Set model.depth to 6n+2"),
        ("resnet20", {"width": 0}, "model.width=0 leaves no channels"),
        ("wrn28_2", {"depth": 29}, "wide_resnet has no depth 29. Set model.depth to 6n+4"),
        ("vgg16", {"depth": 17}, "vgg has no depth 17. Set model.depth to 11, 13, 16 or 19"),
        ("conv2", {"depth": 3}, "convnet has no depth 3. Set model.depth to 2, 4, 6 or 8"),
        ("vit", {"heads": 3}, "a multiple of model.heads, which is 3"),
        (
            "torchvision",
            {"name": "resnet81"},
            "Unknown torchvision model model.name='resnet81'. Did you mean 'resnet18'",
        ),
        ("torchvision", {"pretrained": "IMAGENET1K_V3"}, "Did you mean 'IMAGENET1K_V1'"),
    ],
)
def test_impossible_settings_are_refused_with_what_is_allowed(
    name: str, knobs: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        build(name, **knobs)


# -------------------------------------------------------------------------------------------------
# pretrained
@pytest.mark.parametrize("knobs", [{}, {"name": "mnasnet0_5"}])
def test_pretrained_weights_come_back_bit_for_bit(tmp_path: Path, knobs: dict[str, Any]) -> None:
    name = "torchvision" if knobs else "resnet20"
    saved = build(name, **knobs)
    assert equal(
        build(name, seed=1, pretrained=save(saved, tmp_path / "saved.safetensors"), **knobs), saved
    )


@pytest.mark.parametrize("init", ["kaiming_normal", "torch_default"])
def test_another_number_of_classes_starts_with_a_new_head_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, init: str
) -> None:
    path = save(build("resnet20", classes=100), tmp_path / "saved.safetensors")
    with caplog.at_level(logging.INFO, logger="dimred.models.pretrained"):
        model = build("resnet20", seed=1, pretrained=path, init=init)
    assert "has 100 classes, this model 10" in caplog.text
    assert "classifier fc left at initial values" in caplog.text
    scratch = build("resnet20", seed=1, init=init)
    old = build("resnet20", classes=100).state_dict()
    for key, value in model.state_dict().items():
        assert torch.equal(value, scratch.state_dict()[key] if key.startswith("fc.") else old[key])


def test_a_file_without_classifier_leaves_it_at_its_initial_values(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = {
        key: value
        for key, value in build("resnet20").state_dict().items()
        if not key.startswith("fc.")
    }
    save_file(state, tmp_path / "saved.safetensors")
    with caplog.at_level(logging.INFO, logger="dimred.models.pretrained"):
        model = build(
            "resnet20", seed=1, pretrained=str(tmp_path / "saved.safetensors")
        ).state_dict()
    assert "saved.safetensors has no classifier" in caplog.text
    assert "classifier fc left at initial values" in caplog.text
    scratch = build("resnet20", seed=1).state_dict()
    assert all(torch.equal(model[key], state.get(key, scratch[key])) for key in model)
    save_file(state | {"fc.bias": torch.zeros(10)}, tmp_path / "half.safetensors")
    with pytest.raises(UserError, match=r"only in this model: fc.weight\. Choose"):
        build("resnet20", pretrained=str(tmp_path / "half.safetensors"))


def written(form: str, state: dict[str, Any]) -> dict[str, Any]:
    """A state dict as training code writes it."""
    counts = [key for key in state if key.endswith("num_batches_tracked")]
    return {
        "plain": lambda: state,
        "data_parallel": lambda: {f"module.{key}": state[key] for key in state},
        "compiled": lambda: {f"_orig_mod.{key}": state[key] for key in state},
        "both": lambda: {f"_orig_mod.module.{key}": state[key] for key in state},
        "nested": lambda: {
            "epoch": 3,
            "state_dict": written("data_parallel", state),
            "optimizer": {},
        },
        "model": lambda: {"model": state, "args": {"lr": 0.1}},
        "old": lambda: {key: state[key] for key in state if key not in counts},
    }[form]()


@pytest.mark.parametrize(
    ("form", "suffix"),
    [
        ("plain", ".pt"),
        ("plain", ".pth"),
        ("data_parallel", ".safetensors"),
        ("compiled", ".safetensors"),
        ("both", ".pth"),
        ("nested", ".pth"),
        ("model", ".pt"),
        ("old", ".safetensors"),
    ],
)
def test_files_are_read_in_all_forms_that_lie_around(
    form: str, suffix: str, tmp_path: Path
) -> None:
    saved, path = build("resnet20"), tmp_path / f"saved{suffix}"
    content = written(form, saved.state_dict())
    if suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    assert equal(build("resnet20", seed=1, pretrained=str(path)), saved)


def test_a_prefix_of_the_model_itself_stays() -> None:
    names = {"module.fc.weight", "module.fc.bias"}
    state = {name: torch.ones(1) for name in names}
    assert set(unwrapped(state, names)) == names
    assert (
        set(unwrapped({f"module.{name}": value for name, value in state.items()}, names)) == names
    )
    assert set(unwrapped(state, {"fc.weight", "fc.bias"})) == {"fc.weight", "fc.bias"}


def test_code_in_a_file_is_not_run_and_what_has_no_state_dict_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "saved.pth"
    for content, message in [
        (Malice(), r"torch.load\(weights_only=True\) refuses it.*Save the state dict alone"),
        (build("lenet300"), r"torch.load\(weights_only=True\) refuses it"),
        (
            {"epoch": 3, "lr": 0.1},
            r"but the entries epoch, lr\. Allowed is a dictionary of tensors",
        ),
        (torch.ones(3), r"but a Tensor\."),
        ({}, r"but a dict\."),
    ]:
        torch.save(content, path)
        with pytest.raises(UserError, match=message):
            build("lenet300", pretrained=str(path))
    whole = path.read_bytes()
    for damaged in (whole[:-30], b"", b"no tensors here"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"Cannot read model.pretrained="):
            build("lenet300", pretrained=str(path))
    assert not Path("the-code-in-the-file-ran").exists()


def test_another_network_is_refused_with_the_first_differences(tmp_path: Path) -> None:
    path = save(build("resnet20"), tmp_path / "saved.safetensors")
    with pytest.raises(
        UserError,
        match=r"wrong shape: conv.weight \[16, 3, 3, 3\] instead of \[32, 3, 3, 3\], .* more"
        r"\. Choose the model",
    ):
        build("resnet20", width=2, pretrained=path)
    with pytest.raises(UserError, match=r"only in this model: stage1.3.conv1.weight.* more"):
        build("resnet32", pretrained=path)
    with pytest.raises(UserError, match=r"only in this model: fc1.weight.*only in the file: bn\."):
        build("lenet300", pretrained=path)


def test_a_head_for_other_features_is_not_taken_for_another_number_of_classes(
    tmp_path: Path,
) -> None:
    path = save(build("lenet300", MNIST, classes=5), tmp_path / "saved.safetensors")
    with pytest.raises(
        UserError, match=r"wrong shape: fc1.weight \[300, 784\] instead of \[300, 64\]\. Choose"
    ):
        build("lenet300", DIGITS, pretrained=path)
    state = build("lenet300", MNIST, classes=5).state_dict() | {"fc3.weight": torch.zeros(5, 99)}
    save_file(state, path)
    with pytest.raises(
        UserError, match=r"wrong shape: fc3.weight \[5, 99\] instead of \[10, 100\]"
    ):
        build("lenet300", MNIST, pretrained=path)


def test_a_missing_truncated_or_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "saved.safetensors"
    message = r"Cannot read model.pretrained=.*No such file.*Allowed is null, the folder"
    with pytest.raises(UserError, match=message):
        build("lenet300", pretrained=str(path))
    save(build("lenet300"), path)
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:100], b"", b"no tensors here"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"Cannot read model.pretrained="):
            build("lenet300", pretrained=str(path))
    with pytest.raises(UserError, match=r"Cannot read model.pretrained="):
        build("lenet300", pretrained=str(tmp_path))


# -------------------------------------------------------------------------------------------------
# torchvision
@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of torchvision weights on a machine whose network is down."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for key in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(key, "http://127.0.0.1:9")
    for key in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(key, raising=False)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_torchvision_weights_without_a_network_say_where_to_put_the_file(cache: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"refused.*Get https://.*put it at " + re.escape(f"{cache}{os.sep}resnet18-"),
    ):
        build("torchvision", pretrained="IMAGENET1K_V1")


def test_torchvision_weights_load_and_get_a_new_head(cache: Path) -> None:
    published = build("torchvision", name="squeezenet1_1", classes=1000)
    torch.save(published.state_dict(), cache / "squeezenet1_1-b8a52dc0.pth")
    whole = build("torchvision", name="squeezenet1_1", classes=1000, seed=1, pretrained="DEFAULT")
    assert equal(whole, published)
    model = build("torchvision", name="squeezenet1_1", seed=1, pretrained="IMAGENET1K_V1")
    for key, value in model.state_dict().items():
        assert key.startswith("classifier.1.") or torch.equal(value, published.state_dict()[key])
    assert model(torch.randn(2, *CIFAR)).shape == (2, 10)


def test_dotted_names_in_the_files_of_densenet_are_understood(cache: Path) -> None:
    published = build("torchvision", name="densenet121", classes=1000)
    dotted = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", key): value
        for key, value in published.state_dict().items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in dotted
    torch.save(dotted, cache / "densenet121-a639ec97.pth")
    assert equal(
        build("torchvision", name="densenet121", classes=1000, seed=1, pretrained="DEFAULT"),
        published,
    )


class Malice:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("the-code-in-the-file-ran",)


def test_a_damaged_or_malicious_weights_file_is_refused_and_not_run(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(cache)
    file = cache / "squeezenet1_1-b8a52dc0.pth"
    torch.save(build("torchvision", name="squeezenet1_1").state_dict(), file)
    for damage in (
        lambda: file.write_bytes(file.read_bytes()[:1000]),
        lambda: torch.save(Malice(), file),
    ):
        damage()
        with pytest.raises(
            UserError, match=r"Cannot load torchvision's squeezenet1_1 .*replacing what"
        ) as caught:
            build("torchvision", name="squeezenet1_1", pretrained="DEFAULT")
        assert "weights_only" not in str(
            caught.value
        )  # torch's own message advises to run the code
    assert not Path("the-code-in-the-file-ran").exists()


def test_torchvision_models_refuse_gray_and_too_small_images() -> None:
    with pytest.raises(UserError, match=r"resnet18 needs images with 3 channels, these have 1"):
        build("torchvision", MNIST)
    with pytest.raises(
        UserError, match=r"squeezenet1_1 cannot take images of 8x8 pixels .*dataset.resize=17,"
    ):
        build("torchvision", (3, 8, 8), name="squeezenet1_1")


@pytest.mark.parametrize("name", ["regnet_y_400mf", "googlenet"])
def test_torchvision_models_return_logits_alone_in_training(name: str) -> None:
    model = build("torchvision", name=name)
    assert model.training and model(torch.randn(2, *CIFAR)).shape == (2, 10)
