"""dimred export: a trained network for other programs."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dimred.cli.commands import Parser, add_trust, local_folder
from dimred.errors import UserError, first_line

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dimred.files import Json
    from dimred.net import Net

FORMATS = ("dense", "compact", "onnx", "torch-export", "compacted-channels")
ONNX = ("onnx", "onnxscript", "onnxruntime")


def parser() -> Parser:
    parser = Parser(
        "export",
        "RUN FILE [--format NAME] [--half] [--trust]",
        summary="Write a trained network for other programs.",
        more="dense is the state dict of the plain model, as safetensors, which loads without "
        "dimred. compact leaves out what the seed can generate again; dimred import reads it. "
        "compacted-channels leaves out removed channels.",
    )
    parser.add_argument("run", metavar="RUN", type=local_folder, help="the folder of a run")
    parser.add_argument("file", metavar="FILE", help="the file to write")
    parser.add_argument("--format", choices=FORMATS, default="dense", help="default: dense")
    parser.add_argument(
        "--half", action="store_true", help="half precision (with --format compact)"
    )
    add_trust(parser)
    return parser


def run(arguments: list[str]) -> int:
    given = parser().parse(arguments)
    form = given.format
    if given.half and form != "compact":
        raise UserError(f"--half needs --format compact (got --format {form}). Leave it out")
    if form == "onnx" and not all(map(importlib.util.find_spec, ONNX)):
        raise UserError(
            "--format onnx needs a library that is not installed. Install it: "
            "pip install 'dimred[onnx]'"
        )
    from dimred.runs.nets import load_run

    path = output(given.file, given.run)
    net, about = load_run(given.run, given.trust)
    print(f"{path}: {write_as(form, net, about, path, given.half)}")
    return 0


def output(name: str, source: str) -> Path:
    """The path to write to. UserError if it is not a file, or if the file belongs to a run or is
    the source."""
    path, given = Path(name).expanduser(), Path(source).expanduser()
    if not path.name or (path.exists() and not path.is_file()):
        raise UserError(f"cannot write to {name!r}: that is not a file. Name one")
    in_a_run = (path.parent / "config.yaml").exists()
    if in_a_run or (given.exists() and path.resolve() == given.resolve()):
        raise UserError(
            f"cannot write to {path}: it is part of a run, or the file that is read. Name a file "
            "elsewhere"
        )
    return path


def write_as(form: str, net: Net, about: Json, path: Path, half: bool) -> str:
    """Write a net and describe the file."""
    import torch

    from dimred.channels.smaller import without_channels
    from dimred.files import write
    from dimred.runs.compact_file import save_compact
    from dimred.runs.nets import plain_model
    from dimred.storage.tensors import write_tensors

    if form == "dense":
        write_tensors(path, net.state_dict())
        return f"{len(net.state_dict())} tensors; read it with safetensors.torch.load_file"
    if form == "compact":
        size = save_compact(path, net, about, half)
        return f"{size} bytes; read it with dimred import, or dimred.runs.compact_file.load_compact"
    net.train(False)
    images = torch.zeros(2, *about["shape"])
    model = without_channels(net, images) if form == "compacted-channels" else plain_model(net)
    content = (as_onnx if form == "onnx" else as_program)(model.eval(), images)
    note = batches(run_onnx(content) if form == "onnx" else run_program(content), model, images)
    write(path, content)
    if form == "onnx":
        given = "images (N, C, H, W)" if images.dim() == 4 else f"inputs {('N', *images.shape[1:])}"
        return f"{given} to logits (N, classes), {note}; read it with onnxruntime"
    left, whole = (sum(p.numel() for p in each.parameters()) for each in (model, net.model))
    return f"{left} of {whole} parameters, {note}; read it with torch.export.load(FILE).module()"


def as_program(model: nn.Module, images: Tensor) -> bytes:
    """A torch.export program, of batches of any size."""
    import torch

    file = BytesIO()
    with exporting(model):
        torch.export.save(torch.export.export(model, (images,), dynamic_shapes=any_batch()), file)
    return file.getvalue()


def as_onnx(model: nn.Module, images: Tensor) -> bytes:
    import torch

    with exporting(model):
        program = torch.onnx.export(
            model,
            (images,),
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=any_batch(),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return program.model_proto.SerializeToString()


def any_batch() -> Any:
    import torch

    return ({0: torch.export.Dim.AUTO},)


@contextmanager
def exporting(model: nn.Module) -> Iterator[None]:
    """Turn the exporters' exceptions, which are of many types, into a UserError."""
    try:
        yield
    except Exception as error:
        raise UserError(
            f"PyTorch cannot export {type(model).__name__} ({type(error).__name__}: "
            f"{first_line(error)}). Use --format dense, and the model's own code"
        ) from error


def run_program(content: bytes) -> Callable[[Tensor], Tensor]:
    import torch

    return torch.export.load(BytesIO(content)).module()


def run_onnx(content: bytes) -> Callable[[Tensor], Tensor]:
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # `batches` reports what fails
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def batches(exported: Callable[[Tensor], Tensor], model: nn.Module, images: Tensor) -> str:
    """Run the exported model and say for which batch sizes it works. UserError if it fails for the
    size of the export."""
    wrong = [size for size in (1, 5) if not agree(exported, model, images, size)]
    if not agree(exported, model, images, len(images)):
        raise UserError(
            f"the exported {type(model).__name__} does not compute the model's logits. Use "
            "--format dense, and the model's own code"
        )
    if wrong:
        sizes = " or ".join(map(str, wrong))
        return f"but NOT for batches of {sizes}: the model fixes the size to {len(images)}"
    return "for batches of any size"


def agree(
    exported: Callable[[Tensor], Tensor], model: nn.Module, images: Tensor, size: int
) -> bool:
    """Whether both compute the same logits for a batch of that size."""
    import torch

    inputs = torch.rand(size, *images.shape[1:], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        try:
            found = exported(inputs)
        except Exception:  # onnxruntime and torch.export raise types of their own
            return False
        logits = model(inputs)
    return found.shape == logits.shape and torch.allclose(found, logits, rtol=1e-3, atol=1e-4)
