"""The training loop. A method is a program around it:

    train(start, stop)                     train from step `start` to step `stop`
    train(start, stop, lr_of=step)         the same, all at the learning rate of one step (of the last: fine-tuning)
    for t in train.steps(start, stop):     the same, pausing at every step between backward and the optimiser's step
    train.snapshot()                       everything as it is now, for net.restore
    for k in train.rounds(range(5)):       the items; logs round, time and accuracy

Durable by replay: a program that runs cannot be saved, but it can be run again. These calls are
numbered, as training phases; when a run is resumed, phases that had finished return at once, the interrupted one loads
net, optimiser and random states and goes on from its step. So what must survive lives in the net or
in a snapshot, never in a local variable. The learning rate is a function of the step, and the order
of the data one of (seed, epoch): rewinding is just `train(k)`."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from dimred.data.base import Data
from dimred.errors import Interrupted, UserError, require
from dimred.net import Net, State
from dimred.net.seeded import generators, seed_generators, set_generators
from dimred.net.state import below
from dimred.select.schedules import steps_between
from dimred.storage.files import read_tensors, write_tensors
from dimred.storage.folder import RunFolder
from dimred.training.exploration import Exploration
from dimred.training.flops import Costs
from dimred.training.progress import Progress
from dimred.training.recipe import Recipe
from dimred.training.start_of_run import require_same_start, start_of_run

log = logging.getLogger(__name__)
T = TypeVar("T")
SCORING_EPOCH = 2**31 - 1  # whose augmented examples are scored with: no training gets there
READ_EVERY = (
    50  # steps between looks at the device's sums: the only times that training waits for it
)


@dataclass
class Best:
    """The evaluation with the highest validation accuracy since the number of trained weights last
    changed."""

    step: int = 0
    dim: int = -1
    val_accuracy: float = -1.0
    test_accuracy: float = float("nan")


class Train:
    """Trains `net` on `data` by `recipe`; the argument of every method's `run`.

    folder: where metrics, checkpoints and snapshots are written, and from where an interrupted run
    is resumed; or None."""

    def __init__(
        self,
        net: Net,
        data: Data,
        recipe: Recipe,
        *,
        seed: int = 0,
        folder: RunFolder | None = None,
        checkpoint_seconds: float = 60.0,
    ) -> None:
        self.net, self.data, self.recipe, self.seed = net, data, recipe, seed
        self.epoch_steps = data.steps_per_epoch(recipe.batch_size)
        self.total = recipe.steps or max(1, round(recipe.epochs * self.epoch_steps))
        self.device = next(net.model.parameters()).device
        net.optimizer = self.optimizer = recipe.make_optimizer(net)
        if recipe.compile:
            net.compile()
        self.best, self.seconds, self.stop_signal = Best(), 0.0, 0
        self.in_steps = False  # whether a signal has to wait for the end of a step
        self.progress = Progress(self.total, self.epoch_steps)
        self.steps_done = 0  # over all training phases
        self.costs, self.exploration = Costs(net, data.shape), Exploration(net)
        self._folder, self._every = folder, checkpoint_seconds
        self._phases, self._last_stop = 0, 0
        self._lr_of: int | None = None  # the step whose learning rate all steps have
        self._losses, self._correct = torch.zeros(
            2, READ_EVERY, device=self.device
        )  # of the steps not read yet
        self._unread = 0
        self._sums = [0.0, 0.0, 0]  # loss, correct and steps since the last evaluation
        self._recent: list[float] = []  # the last losses read
        self._clock = self._saved = time.monotonic()
        self._resume = (
            read_tensors(folder.checkpoint) if folder and folder.checkpoint.exists() else None
        )
        self._start = start_of_run(net.state_dict(), self.device) if folder else {}
        if folder and self._resume:
            require_same_start(self._resume[1]["start_of_run"], self._start, folder.checkpoint)
        if folder:
            folder.resume(self._resume[1] if self._resume else {})
        # of dropout, and of what a model of others draws; nothing else draws from them
        seed_generators(seed)

    def __len__(self) -> int:
        """Steps of one whole training."""
        return self.total

    def __call__(self, start: int = 0, stop: int | None = None, lr_of: int | None = None) -> None:
        """Train from step `start` to step `stop` (to the end). UserError unless 0 <= start <= stop
        <= len(self)."""
        with self.costs.executed.set(False):  # there is nothing to count at the pauses
            for _ in self.steps(start, stop, lr_of=lr_of):
                pass

    def steps(
        self,
        start: int = 0,
        stop: int | None = None,
        dense_grad: Callable[[int], bool] | None = None,
        lr_of: int | None = None,
    ) -> Iterator[int]:
        """Train, yielding each step t at its pause: theta_t and fresh gradients are there, and what
        is done to the net counts in this very step; net.zero_grad() means "take no step". In steps
        where dense_grad(t) holds, net.grads() gives the gradients of all covered weights. With
        lr_of, all steps have the learning rate of that one."""
        stop = self.total if stop is None else stop
        if not 0 <= start <= stop <= self.total:
            raise UserError(
                f"cannot train from step {start} to {stop}: training has {self.total} steps "
                f"({self.epoch_steps} an epoch). Choose steps in that range, or more recipe.epochs"
            )
        phase = self._number()
        if self._finished_before(phase):
            return
        self._lr_of = lr_of
        if start != self._last_stop:
            self.best = (
                Best()
            )  # a new training begins: rewinding makes earlier evaluations another network's
        now = self._load_checkpoint() if self._resume else start
        counter = self.costs.executed
        with (
            self._taking_steps(),
            self.progress.steps(start, stop, now),
            counter.set(False) as counted,
        ):
            for t, images, labels in self._batches(now, stop):
                dense = dense_grad is not None and dense_grad(t)
                self.exploration.look()
                self.costs.step(
                    len(images), dense
                )  # before gradients are kept: it may take some of its own
                if dense_grad:
                    self.net.retain_grad(dense)
                self._backward(images, labels)
                with counter.set(counted):
                    yield t
                self._descend(t)
                self._after(phase, t + 1, stop)
        self._last_stop = stop

    def period(self, every: float) -> int:
        """Steps between two times: `every` or, below 1, that fraction of training."""
        return steps_between(every, self.total)

    def every(
        self, every: float, until: float = 1.0, key: str = "method.every"
    ) -> Callable[[int], bool]:
        """Whether something periodic is due at step t: not at step 0, and not after the fraction
        `until` of training.

        UserError, naming the key, if it would never be due: the method would not do what it is
        for."""
        period, end = self.period(every), until * self.total
        if period >= end:
            raise UserError(
                f"{key}={every} means every {period} steps, and only {end:g} of the "
                f"{self.total} steps of "
                f"training count: it would never happen. Choose a smaller {key}, or "
                "more recipe.epochs"
            )
        return lambda t: 0 < t < end and t % period == 0

    def snapshot(self) -> State:
        """Weights, norms, coordinates and the optimiser's memory as they are now; survives a
        resume."""
        phase = self._number()
        path = self._folder.snapshot(phase) if self._folder else None
        if path and self._finished_before(phase):
            return {name: value.to(self.device) for name, value in read_tensors(path)[0].items()}
        state = self.net.state()
        if path:
            write_tensors(path, state)
        return state

    def once(self, work: Callable[[], None]) -> None:
        """Do work on the net that is too long to be done again when the run is resumed: a training
        phase like the others."""
        if not self._finished_before(self._number()):
            work()

    def rounds(self, items: Collection[T], what: str = "round") -> Iterator[T]:
        """The items, one after the other; a bar and log.txt say how far they are."""
        return self.progress.rounds(items, what)

    def scale_lr(self, scales: Mapping[str, float]) -> None:
        """Train parameters (by their names in net.parameters()) at a multiple of the learning rate,
        from now on."""
        parameters = self.net.parameters()
        self.net.optimizer_state.scale_lr({parameters[name]: s for name, s in scales.items()})

    def forget_best(self) -> None:
        """Select the best evaluation from those to come alone: earlier ones were of another kind of
        network."""
        self.best = Best()

    def sample(self, examples: int, augment: bool = False) -> tuple[Tensor, Tensor]:
        """Training examples to score weights with, plain or augmented as in training. Every call
        returns the same. UserError if there are fewer."""
        require(examples > 0, "method.examples", examples, "1 or more")
        there = self.data.sizes["train"]
        if examples > there:
            raise UserError(
                f"method.examples={examples} asks for a sample of {examples} training "
                "examples; "
                f"{self.data.name} has {there}. "
                f"Choose method.examples={there} or fewer"
            )
        if augment:
            return next(self.data.train_batches(examples, self.seed, SCORING_EPOCH))
        return self.data.sample(examples, self.seed)

    # -- one step --------------------
    def _batches(self, start: int, stop: int) -> Iterator[tuple[int, Tensor, Tensor]]:
        t = start
        while t < stop:
            epoch, first = divmod(t, self.epoch_steps)
            for images, labels in self.data.train_batches(
                self.recipe.batch_size, self.seed, epoch, first
            ):
                yield t, images, labels
                t += 1
                if t == stop:
                    return

    def _backward(self, images: Tensor, labels: Tensor) -> None:
        self.net.zero_grad()
        with self.net.weights_in_place(channels_last=self.recipe.channels_last) as model:
            logits = self._logits(model, images)
            loss = (
                F.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)
                + self.net.penalty()
            )
            if loss.requires_grad:  # else nothing at all is trained
                loss.backward()
        with torch.no_grad():
            self._losses[self._unread] = loss.detach()
            self._correct[self._unread] = (logits.argmax(1) == labels).sum()
        self._unread += 1

    def _logits(self, model: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        if self.recipe.channels_last:
            images = images.to(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.bf16):
            return model(images).float()

    def _lr(self, t: int) -> float:
        return self.recipe.lr_at(t if self._lr_of is None else self._lr_of, self.total)

    def _descend(self, t: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self._lr(t) * group.get("scale", 1.0)
        if self.recipe.clip:
            torch.nn.utils.clip_grad_norm_(self.net.parameters().values(), self.recipe.clip)
        self.optimizer.step()
        self.net.has_trained = True
        self.steps_done += 1

    def _after(self, phase: int, t: int, stop: int) -> None:
        """Evaluate at the end of an epoch and of a phase; save when it is time or a signal came. `t`
        steps are done."""
        self.progress.step()
        ended = t == stop or t % self.epoch_steps == 0
        due = time.monotonic() - self._saved >= self._every and self._folder is not None
        if ended or due or self.stop_signal or self._unread == READ_EVERY:
            loss, accuracy = self._read(t)
            self.progress.at(t - 1, accuracy)
        if ended:
            self._evaluate(phase, t, loss, accuracy, t == stop)
        if self._folder and (due or self.stop_signal):
            self._save_checkpoint(phase, t)
        if self.stop_signal:
            raise Interrupted(self.stop_signal, t)

    @contextmanager
    def _taking_steps(self) -> Iterator[None]:
        self.in_steps = True
        try:
            yield
        finally:
            self.in_steps = False

    def _read(self, t: int) -> tuple[float, float]:
        """Mean loss and accuracy since the last evaluation. UserError if a loss was not a
        number."""
        losses, correct = (
            self._losses[: self._unread].tolist(),
            self._correct[: self._unread].tolist(),
        )
        for i, loss in enumerate(losses):
            if not math.isfinite(loss):
                step = t - len(losses) + i
                recent = ", ".join(f"{x:.4g}" for x in (self._recent + losses[:i])[-5:]) or "none"
                raise UserError(
                    f"the loss became {loss} at step {step} of {self.total}, at learning rate "
                    f"{self.recipe.lr_at(step, self.total):.4g} (losses before it: {recent}). "
                    "Try a smaller recipe.lr, recipe.warmup=0.05 or recipe.clip=1"
                )
            self._sums = [self._sums[0] + loss, self._sums[1] + correct[i], self._sums[2] + 1]
        self._recent, self._unread = (self._recent + losses)[-5:], 0
        total, right, steps = self._sums
        return total / steps, right / steps / self.recipe.batch_size

    # -- evaluation --------------------
    def evaluate(self, split: str) -> tuple[float, float]:
        """Mean loss and accuracy (a fraction) on "train", "val" or "test", every example counted
        once."""
        sums = torch.zeros(2, device=self.device, dtype=torch.float64)
        self.net.train(False)
        with (
            torch.no_grad(),
            self.net.weights_in_place(channels_last=self.recipe.channels_last) as model,
        ):
            for images, labels in self.data.eval_batches(split):
                logits = self._logits(model, images)
                sums += torch.stack(
                    (
                        F.cross_entropy(logits, labels, reduction="sum"),
                        (logits.argmax(1) == labels).sum(),
                    )
                )
        self.net.train()
        loss, correct = sums.tolist()
        return loss / self.data.sizes[split], correct / self.data.sizes[split]

    def _evaluate(self, phase: int, t: int, loss: float, accuracy: float, last: bool) -> None:
        line: dict[str, Any] = {
            "phase": phase,
            "step": t,
            "epoch": t / self.epoch_steps,
            "lr": self._lr(t - 1),
            "train_loss": loss,
            "train_accuracy": accuracy,
            "dim": self.net.dim,
            "overlap": self.exploration.overlap(),
            "explored": self.exploration.explored(),
            "training_flops": self.costs.steps + self.costs.scoring,
        }
        self.costs.look_again()
        if self.net.dim != self.best.dim:
            self.best = Best(dim=self.net.dim)
        if self.data.sizes["val"]:
            line["val_loss"], line["val_accuracy"] = self.evaluate("val")
            if line["val_accuracy"] > self.best.val_accuracy:
                line["test_loss"], line["test_accuracy"] = self.evaluate(
                    "test"
                )  # reported, never selected on
                self.best = Best(t, self.net.dim, line["val_accuracy"], line["test_accuracy"])
        self._sums = [0.0, 0.0, 0]
        self.progress.evaluated(line, last)
        if self._folder:
            self._folder.append(line)

    # -- replay --------------------
    def _number(self) -> int:
        self._phases += 1
        return self._phases - 1

    def _finished_before(self, phase: int) -> bool:
        return self._resume is not None and phase < self._resume[1]["phase"]

    def _save_checkpoint(self, phase: int, t: int) -> None:
        assert self._folder
        tensors = {f"net/{name}": value for name, value in self.net.state().items()}
        tensors |= {
            f"exploration/{name}": value for name, value in self.exploration.state().items()
        }
        tensors["random/cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["random/cuda"] = torch.cuda.get_rng_state(self.device)
        write_tensors(
            self._folder.checkpoint,
            tensors,
            {
                "start_of_run": self._start,
                "random": generators(),
                "phase": phase,
                "step": t,
                "best": asdict(self.best),
                "sums": self._sums,
                "recent": self._recent,
                "last_stop": self._last_stop,
                "steps_done": self.steps_done,
                "seconds": self.elapsed(),
                "costs": self.costs.state(),
                **self._folder.state(),
            },
        )
        self._saved = time.monotonic()

    def _load_checkpoint(self) -> int:
        """Restore the interrupted phase; its step."""
        assert self._resume
        tensors, about = self._resume
        self._resume = None
        self.net.load(below(tensors, "net/"))
        self.exploration.load(below(tensors, "exploration/"))
        self.costs.load(about["costs"])
        self.best, self._sums, self._recent = Best(**about["best"]), about["sums"], about["recent"]
        self._last_stop = about["last_stop"]
        self.seconds, self.steps_done = about["seconds"], about["steps_done"]
        self._clock = time.monotonic()
        torch.set_rng_state(tensors["random/cpu"])
        if "random" in about:  # not in checkpoints of older versions
            set_generators(about["random"])
        if self.device.type == "cuda" and "random/cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random/cuda"], self.device)
        log.info("resumed at step %d (training phase %d)", about["step"], about["phase"])
        return about["step"]

    def elapsed(self) -> float:
        """Seconds of work on this run, those before an interruption included."""
        return self.seconds + time.monotonic() - self._clock
