"""Random numbers that are the same on every machine, with every version of every library.

Initial weights are drawn by Philox4x64-10, whose key is the seed and the number of the draw. Its
words become uniform or normal numbers by + - * / and sqrt in double precision alone, which IEEE 754
defines to the bit; no library's logarithm or cosine is used. So a weight that was never trained
need not be stored: its `Draw` is enough.

docs/storage.md describes the algorithm; tests/test_draws.py compares it with a second
implementation.

Salmon, Moraes, Dror, Shaw, SC 2011 (Philox); Wichura, Applied Statistics 37(3), 1988, AS 241
(normal quantiles)."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dimred.net.eager import DispatchMode

CHUNK = 2**15  # numbers drawn at once: they fit a core's cache
F64 = np.ndarray[Any, np.dtype[np.float64]]


class Draw(NamedTuple):
    """How the values of a tensor were drawn: U(a, b), or N(a, b^2), from a stream of a seed."""

    seed: int
    stream: int
    kind: Literal["uniform", "normal"]
    a: float
    b: float

    def values(self, count: int) -> np.ndarray:
        """The numbers of the tensor, flat, float32."""
        words, out = np.random.Philox(key=[self.seed, self.stream]), np.empty(count, np.float32)
        for start in range(0, count, CHUNK):
            part = out[start : start + CHUNK]
            u = centred(words.random_raw(len(part)))
            if self.kind == "normal":
                part[:] = self.a + self.b * normal(u)
            else:
                part[:] = self.a + (self.b - self.a) * (u + 0.5)
        if self.kind == "uniform" and self.a < self.b:  # rounding may have reached the upper end
            np.minimum(out, np.nextafter(np.float32(self.b), np.float32(self.a)), out=out)
        return out

    def tensor(self, shape: torch.Size) -> Tensor:
        """The same in a shape."""
        return torch.from_numpy(self.values(shape.numel())).view(shape)


def centred(words: np.ndarray) -> F64:
    """U(-1/2, 1/2) of 64-bit words: odd multiples of 2^-53, by their upper 52 bits. So neither 0
    nor an end."""
    return ((words >> np.uint64(12)).astype(np.float64) * 2.0 + (1.0 - 2.0**52)) * 2.0**-53


def normal(u: F64) -> F64:
    """The standard normal quantile of 1/2 + u, |u| < 1/2, to 16 digits."""
    z = u * ratio(CENTRE, 0.180625 - u * u)
    outside = np.flatnonzero(np.abs(u) > 0.425)
    v = u[outside]
    r = np.sqrt(-log(0.5 - np.abs(v)))
    tail = np.where(r <= 5.0, ratio(TAIL, r - 1.6), ratio(FAR_TAIL, r - 5.0))
    z[outside] = np.where(v < 0, -tail, tail)
    return z


def log(x: F64) -> F64:
    """The natural logarithm of x = m 2^e > 0, 1/sqrt 2 <= m < sqrt 2: 2 artanh((m - 1) / (m + 1)) +
    e log 2."""
    m, e = np.frexp(x)
    low = m < 0.7071067811865476
    m, e = np.where(low, m + m, m), e - low
    s = (m - 1.0) / (m + 1.0)
    return e * 0.6931471805599453 + 2.0 * s * polynomial(ARTANH, s * s)


def polynomial(coefficients: tuple[float, ...], x: F64) -> F64:
    """sum_i c_i x^i, by Horner's rule."""
    out = np.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        out *= x
        out += c
    return out


def ratio(above_below: tuple[tuple[float, ...], tuple[float, ...]], x: F64) -> F64:
    return polynomial(above_below[0], x) / polynomial(above_below[1], x)


ARTANH = tuple(1 / (2 * i + 1) for i in range(12))  # s^2 <= 0.0295, so that the rest is below 2^-60
CENTRE = (
    (
        3.3871328727963666080,
        1.3314166789178437745e2,
        1.9715909503065514427e3,
        1.3731693765509461125e4,
        4.5921953931549871457e4,
        6.7265770927008700853e4,
        3.3430575583588128105e4,
        2.5090809287301226727e3,
    ),
    (
        1.0,
        4.2313330701600911252e1,
        6.8718700749205790830e2,
        5.3941960214247511077e3,
        2.1213794301586595867e4,
        3.9307895800092710610e4,
        2.8729085735721942674e4,
        5.2264952788528545610e3,
    ),
)
TAIL = (
    (
        1.42343711074968357734,
        4.63033784615654529590,
        5.76949722146069140550,
        3.64784832476320460504,
        1.27045825245236838258,
        2.41780725177450611770e-1,
        2.27238449892691845833e-2,
        7.74545014278341407640e-4,
    ),
    (
        1.0,
        2.05319162663775882187,
        1.67638483018380384940,
        6.89767334985100004550e-1,
        1.48103976427480074590e-1,
        1.51986665636164571966e-2,
        5.47593808499534494600e-4,
        1.05075007164441684324e-9,
    ),
)
FAR_TAIL = (
    (
        6.65790464350110377720,
        5.46378491116411436990,
        1.78482653991729133580,
        2.96560571828504891230e-1,
        2.65321895265761230930e-2,
        1.24266094738807843860e-3,
        2.71155556874348757815e-5,
        2.01033439929228813265e-7,
    ),
    (
        1.0,
        5.99832206555887937690e-1,
        1.36929880922735805310e-1,
        1.48753612908506148525e-2,
        7.86869131145613259100e-4,
        1.84631831751005468180e-5,
        1.42151175831644588870e-7,
        2.04426310338993978564e-15,
    ),
)


class Drawing(DispatchMode):
    """While a model is built, `uniform_` and `normal_` draw as above, each from the next stream.
    Other random functions use torch's generator."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed, self.stream = seed, 0
        # by the address of the tensor; with its bits
        self._last: dict[int, tuple[Draw, bytes]] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        kind = KINDS.get(func)
        # With a generator of its own, the builder says what is drawn.
        if not kind or kwargs.get("generator") is not None or args[0].device.type != "cpu":
            return func(*args, **kwargs)
        tensor: Tensor = args[0]
        a, b = list(args[1:]) + [0.0, 1.0][len(args) - 1 :]  # the defaults of both kinds
        draw = Draw(self.seed, self.stream, kind, float(a), float(b))
        self.stream += 1
        tensor.copy_(draw.tensor(tensor.shape))
        self._last[tensor.data_ptr()] = draw, bits(tensor)
        return tensor

    def of(self, model: nn.Module) -> dict[str, Draw]:
        """The last draw of each parameter, by name. It may have been changed since: compare the
        values."""
        return {
            name: self._last[p.data_ptr()][0]
            for name, p in model.named_parameters()
            if p.data_ptr() in self._last
        }

    def intact(self, model: nn.Module) -> dict[str, Draw]:
        """The draws of the parameters that still have the drawn bits, under all of their names."""
        known = {
            name: (p, self._last[p.data_ptr()])
            for name, p in model.named_parameters(remove_duplicate=False)
            if p.data_ptr() in self._last
        }
        return {name: draw for name, (p, (draw, drawn)) in known.items() if bits(p) == drawn}


KINDS: dict[Any, Literal["uniform", "normal"]] = {
    torch.ops.aten.uniform_.default: "uniform",
    torch.ops.aten.normal_.default: "normal",
}


def bits(tensor: Tensor) -> bytes:
    """A checksum of a tensor's numbers, to the bit."""
    flat = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
    return hashlib.blake2b(flat.numpy().data, digest_size=16).digest() if flat.numel() else b""


# -- the global generators --------------------
def seed_generators(seed: int) -> None:
    """Seed the generators of torch, numpy and Python, which models may draw from."""
    torch.manual_seed(seed)
    random.seed(seed)
    # numpy takes 32 bits, or a list of them
    np.random.seed(seed if seed < 2**32 else [seed % 2**32, seed // 2**32])


def generators() -> list[Any]:
    """The states of numpy's and Python's generators, as JSON."""
    arrays: Any = np.random.get_state()
    kind, words, *rest = arrays
    return [[kind, words.tolist(), *rest], random.getstate()]


def set_generators(states: Sequence[Any]) -> None:
    """Return to the states of `generators()`."""
    arrays, (version, words, gauss) = states
    np.random.set_state(tuple(arrays))
    random.setstate((version, tuple(words), gauss))


@contextmanager
def generators_kept(devices: Sequence[torch.device] = ()) -> Iterator[None]:
    """Afterwards the generators of torch (of the CPU and these devices), numpy and Python are as
    before the block."""
    before = generators()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        set_generators(before)


# -- of a whole model --------------------
@contextmanager
def seeded(seed: int) -> Iterator[Drawing]:
    """Within the block, the random numbers of torch, numpy and Python depend on the seed alone, so
    that a model's builder may use any of them. Afterwards the generators have their states of
    before."""
    with generators_kept(), Drawing(seed) as drawing:
        seed_generators(seed)
        yield drawing


class Initial:
    """The initial state dict of a model, made again at every call.

    Parameters that still are as `Drawing` drew them are drawn again, so they take no memory.
    Everything else is copied: a builder may have read it from a file, or drawn it from a generator
    whose state has moved on.
    """

    def __init__(self, model: nn.Module, drawing: Drawing) -> None:
        state, self.draws = model.state_dict(), drawing.intact(model)
        self.like = {name: value.to("meta") for name, value in state.items()}
        self.kept = {name: value.clone() for name, value in state.items() if name not in self.draws}

    def __call__(self) -> dict[str, Tensor]:
        out = {}
        for name, like in self.like.items():
            if name in self.kept:
                out[name] = self.kept[name].clone()
            else:
                out[name] = self.draws[name].tensor(like.shape).to(like.dtype)
        return out
