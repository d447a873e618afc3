"""The training loop. A method is a program around it:

    train(start, stop)                     train from step `start` to step `stop`
    train(start, stop, lr_of=step)         the same, at the learning rate of that step throughout
    for t in train.steps(start, stop):     the same, pausing at every step before the optimiser's
    train.snapshot()                       the present state, for net.restore
    train.once(work)                       work that a resumed run does not repeat
    for k in train.rounds(range(5)):       the items; logs round, time and accuracy

An interrupted run is resumed by running the method again: resume.py says how. The learning rate is
a function of the step, and the order of the data one of (seed, epoch), so rewinding is `train(k)`.
Tests and tools look at steps through observers (observers.py)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from dimred.data.augmentation import Augmentation
from dimred.data.base import Data, Source
from dimred.data.mixed import Mixed
from dimred.errors import Interrupted, UserError, counted, require
from dimred.net import Net, State
from dimred.net.seeded import seed_generators
from dimred.select.schedules import steps_between
from dimred.storage.folder import RunFolder
from dimred.training.arithmetic import Arithmetic
from dimred.training.average import Average
from dimred.training.capture import CapturedStep, CudaCapture, use_own_stream
from dimred.training.evaluate import Best, RunningLoss, evaluate
from dimred.training.exploration import Exploration, all_together
from dimred.training.flops import Costs
from dimred.training.observers import Observer
from dimred.training.patience import Patience
from dimred.training.progress import Progress
from dimred.training.ranks import ALONE, Ranks
from dimred.training.recipe import Recipe
from dimred.training.resume import Followed, Replay, Stateful
from dimred.training.skipped import Skipped
from dimred.training.step import Step
from dimred.training.timing import StepTimes

T = TypeVar("T")
SCORING_EPOCH = 2**31 - 1  # the epoch of augmented scoring examples: training never reaches it


class Train:
    """Trains `net` on `data` by `recipe`; the argument of every method's `run`.

    folder: where metrics, checkpoints and snapshots are written, and from where an interrupted run
    is resumed; or None.
    observers: see observers.py; `train.observers` may be appended to.
    ranks: the processes that train this net together; see ranks.py.
    """

    def __init__(
        self,
        net: Net,
        data: Data,
        recipe: Recipe,
        *,
        seed: int = 0,
        folder: RunFolder | None = None,
        checkpoint_seconds: float = 60.0,
        observers: Iterable[Observer] = (),
        ranks: Ranks = ALONE,
    ) -> None:
        if recipe.augmentation != Augmentation():
            data = data.with_augmentation(recipe.augmentation)
        if recipe.augmented_copies:
            data = data.with_copies(recipe.augmented_copies)
        self.net, self.data, self.recipe, self.seed = net, data, recipe, seed
        #: of the batches of steps
        self.source: Source = data
        if recipe.mixes:
            self.source = Mixed(data, recipe.mixup, recipe.cutmix)
        self.ranks = ranks
        ranks.require_possible(recipe)
        self.epoch_steps = data.steps_per_epoch(recipe.batch_size)
        self.total = recipe.steps or max(1, round(recipe.epochs * self.epoch_steps))
        self.device = next(net.model.parameters()).device
        if self.device.type == "cuda":
            use_own_stream(self.device)
            # cuDNN's fastest gradients of convolutions add up in another order in every run
            torch.backends.cudnn.deterministic = True
        if recipe.theta == "rewritten":
            net.rewrite_theta()
        net.optimizer = self.optimizer = recipe.make_optimizer(net)
        if recipe.compile:
            net.compile(retained=recipe.accumulate > 1)
        self.observers, self.folder = [*observers], folder
        self.stop_signal = 0  # set by a signal: end the run after this step
        self.in_steps = False  # whether a signal has to wait for the end of a step
        self.progress = Progress(self.total, self.epoch_steps)
        self.costs, self.exploration = Costs(net, data.shape), Exploration(net)
        self.best, self.average = Best(), Average(net, recipe.ema)
        self.patience = Patience(recipe, data, self.best)
        self.running_loss = RunningLoss(recipe.batch_size, self.device, ranks)
        net.optimizer_state.set_lr(recipe.lr_at(0, self.total))
        self.stepper = self._make_stepper()
        self.arithmetic, self.step_times = Arithmetic(net, recipe), StepTimes()
        self.skipped = Skipped(net, data, recipe, seed, folder.path if folder else None)
        numbers: dict[str, Stateful] = {
            "best": self.best,
            "best_average": self.average.best,
            "running_loss": self.running_loss,
            "costs": self.costs,
            "captured_steps": self.stepper,
            "arithmetic": self.arithmetic,
            "ranks": ranks,
        }
        tensors: dict[str, Followed] = {"exploration": self.exploration, "average": self.average}
        self.replay = Replay(net, tensors, numbers, folder, checkpoint_seconds, ranks.share.size)
        if folder:
            folder.tell(lambda: {**self.progress.position(), "seconds": self.elapsed()})
        ranks.require_same({"checkpoint": self.replay.checkpoint_step}, "another")
        ranks.require_same_net(net)
        self._lr_of: int | None = None  # the step whose learning rate all steps have
        # Dropout and other people's models draw from torch's generators; nothing in dimred does.
        seed_generators(seed)

    def __len__(self) -> int:
        """Steps of one whole training."""
        return self.total

    @property
    def steps_done(self) -> int:
        """Optimiser steps of this run, over all training phases."""
        return self.replay.steps_done

    def __call__(self, start: int = 0, stop: int | None = None, lr_of: int | None = None) -> None:
        """Train from step `start` to step `stop` (to the end). UserError unless 0 <= start <= stop
        <= len(self)."""
        with self.costs.executed.set(False):  # there is nothing to count at the pauses
            for _ in self._phase(start, stop, lr_of=lr_of, pauses=False):
                pass

    def steps(
        self,
        start: int = 0,
        stop: int | None = None,
        dense_grad: Callable[[int], bool] | None = None,
        lr_of: int | None = None,
    ) -> Iterator[int]:
        """Train, and yield each step t at its pause, between its gradients and its update.

        At the pause the weights are theta_t. A change of coordinates counts in this step's update
        already; after net.zero_grad() the step has no update.

        dense_grad: the steps in which net.grads() has the gradients of all covered weights
        lr_of: a step whose learning rate all these steps have
        """
        return self._phase(start, stop, dense_grad, lr_of)

    def _phase(
        self,
        start: int,
        stop: int | None,
        dense_grad: Callable[[int], bool] | None = None,
        lr_of: int | None = None,
        pauses: bool = True,
    ) -> Iterator[int]:
        """A training phase. pauses: whether the method may change the net at those."""
        stop = self.total if stop is None else stop
        if not 0 <= start <= stop <= self.total:
            raise UserError(
                f"cannot train from step {start} to {stop}: training has "
                f"{counted(self.total, 'step')} ({self.epoch_steps} an epoch). Choose steps in "
                "that range, or more recipe.epochs"
            )
        phase = self.replay.begin_phase()
        if self.replay.is_over(phase):
            return
        self._lr_of = lr_of
        if start != self.replay.last_stop:  # rewound: earlier evaluations were of other networks
            self.best.restart()
            self.average.restart()
        self.patience.begin_phase(stop == self.total, pauses)
        now = self.replay.restore(start)
        executed = self.costs.executed
        with (
            self._taking_steps(),
            self.progress.steps(start, stop, now),
            executed.set(False) as outside,
        ):
            for t in self._batches(now, stop, whole=dense_grad is not None):
                if self.patience.is_lost(t):
                    break
                self._backward(t, dense_grad)
                with executed.set(outside):  # what the method executes at its pause
                    yield t
                self._update(t)
                self._after(phase, t + 1, stop)
        self.replay.last_stop = stop

    # -- what methods call --------------------
    def period(self, every: float) -> int:
        """Steps between two times: `every` or, below 1, that fraction of training."""
        return steps_between(every, self.total)

    def every(
        self, every: float, until: float = 1.0, key: str = "method.update_every"
    ) -> Callable[[int], bool]:
        """A function that tells whether something periodic is due at step t: never at step 0, and
        not after the fraction `until` of training. UserError, naming the key, if it would never be
        due."""
        period, end = self.period(every), until * self.total
        if period >= end:
            raise UserError(
                f"{key}={every} means every {counted(period, 'step')}, and only {end:g} of the "
                f"{self.total} steps of training count: it would never happen. Choose a smaller "
                f"{key}, or more recipe.epochs"
            )
        return lambda t: 0 < t < end and t % period == 0

    def snapshot(self) -> State:
        """The present weights, norms, coordinates and optimiser state. A resumed run gets the same
        ones again."""
        return self.replay.snapshot()

    def once(self, work: Callable[[], None]) -> None:
        """Do work on the net that takes too long to be repeated when the run is resumed."""
        if not self.replay.is_over(self.replay.begin_phase()):
            work()

    def rounds(self, items: Collection[T], what: str = "round") -> Iterator[T]:
        """The items, one after the other; a bar and log.txt show the progress."""
        return self.progress.rounds(items, what)

    def scale_lr(self, scales: Mapping[str, float]) -> None:
        """Train parameters (by their names in net.parameters()) at a multiple of the learning rate,
        from now on."""
        parameters = self.net.parameters()
        self.net.optimizer_state.scale_lr({parameters[name]: s for name, s in scales.items()})

    def forget_best(self) -> None:
        """Select the best evaluation among those to come: earlier ones were of another network."""
        self.best.restart()
        self.average.best.restart()

    def sample(self, examples: int, augment: bool = False) -> tuple[Tensor, Tensor]:
        """Training examples to score weights with, plain or augmented as in training. Every call
        returns the same. UserError if there are fewer."""
        require(examples > 0, "method.examples", examples, "1 or more")
        available = self.data.sizes["train"]
        if examples > available:
            raise UserError(
                f"method.examples={examples} asks for a sample of "
                f"{counted(examples, 'training example')}; {self.data.name} has {available}. "
                f"Choose method.examples={available} or fewer"
            )
        if augment:
            return next(self.data.train_batches(examples, self.seed, SCORING_EPOCH))
        return self.data.sample(examples, self.seed)

    def evaluate(self, split: str) -> tuple[float, float]:
        """Mean loss and accuracy (a fraction) on "train", "val" or "test", every example counted
        once."""
        if self.skipped.is_current():
            source, part = self.skipped.source, self.skipped.part
            return evaluate(self.net, source, self.recipe, split, part, self.ranks)
        return evaluate(self.net, self.data, self.recipe, split, ranks=self.ranks)

    def elapsed(self) -> float:
        """Seconds of work on this run, those before an interruption included."""
        return self.replay.elapsed()

    # -- one step: _backward, the pause, _update --------------------
    # At the pause a method may give a weight another psi, so a captured step ends there.
    def _make_stepper(self) -> Step:
        on_gpu, capture = self.device.type == "cuda", self.recipe.capture
        require(
            on_gpu or capture is not True,
            "recipe.capture",
            capture,
            f"auto or false on device={self.device}: only a GPU has graphs of steps",
        )
        waits = self.ranks.synchronises(self.recipe)  # for others, within a step
        require(
            not (waits and capture is True),
            "recipe.capture",
            capture,
            "auto or false with recipe.sync_batchnorm=true: a graph does not wait for other "
            "processes",
        )
        kept = self.recipe.theta == "kept"
        captured = on_gpu and capture is not False and kept and not waits and not self.recipe.fp16
        feed = self.source.feed(self.recipe.batch_size, captured, self.ranks.share)
        parts = self.net, self.recipe, feed, self.optimizer, self.running_loss
        if captured:
            return CapturedStep(
                *parts, capture=CudaCapture(), required=capture is True, ranks=self.ranks
            )
        return Step(*parts, fused=on_gpu and kept, ranks=self.ranks)

    def _batches(self, start: int, stop: int, whole: bool) -> Iterator[int]:
        """The steps, with the feed at the batch of each. whole: all of the model is needed."""
        t = start
        while t < stop:
            epoch, first = divmod(t, self.epoch_steps)
            self._skip_what_is_not_needed(whole)
            for _ in self.stepper.feed.steps(self.seed, epoch, first):
                yield t
                t += 1
                if t == stop:
                    return
                if self._skip_what_is_not_needed(whole):
                    break

    def _skip_what_is_not_needed(self, whole: bool) -> bool:
        """Let steps compute no more of the model than the present net needs; whether that is
        another part than before, perhaps with another feed."""
        if not self.skipped.changed(whole):
            return False
        stepper, skipped = self.stepper, self.skipped
        source = skipped.source if skipped.prefix else self.source
        stepper.feed = source.feed(self.recipe.batch_size, stepper.feed.fixed, self.ranks.share)
        stepper.part = skipped.part
        stored = self.data.stored_copies * self.data.sizes["train"]
        self.costs.begin_after(skipped.prefix, stored)
        return True

    def _backward(self, t: int, dense_grad: Callable[[int], bool] | None) -> None:
        """Compute the gradients of step t."""
        dense = dense_grad is not None and dense_grad(t)
        self.exploration.look()
        self.ranks.require_same_net(self.net, changed=False)
        # before dense gradients are collected: these may compute gradients of their own
        self.costs.step(self.recipe.batch_size, dense)
        self.arithmetic.prepare(self.stepper.backward)
        self.step_times.begin()
        if dense_grad:
            self.net.retain_grad(dense)
        for observer in self.observers:
            observer.before_step(self, t)
        self.ranks.begin_step(self.seed, self.steps_done)
        self.stepper.gradients()
        self.ranks.end_step(self.seed, self.steps_done)
        self.ranks.reduce(self.net)
        self.stepper.unscale()
        self.running_loss.count()
        for observer in self.observers:
            observer.after_backward(self, t)

    def _lr(self, t: int) -> float:
        return self.recipe.lr_at(t if self._lr_of is None else self._lr_of, self.total)

    def _update(self, t: int) -> None:
        """Take the optimiser's step."""
        for observer in self.observers:
            observer.before_update(self, t)
        self.net.optimizer_state.set_lr(self._lr(t))
        self.stepper.update()
        self.average.update()
        self.step_times.count()
        self.net.has_trained = True
        self.replay.steps_done += 1
        for observer in self.observers:
            observer.after_update(self, t)

    def _after(self, phase: int, t: int, stop: int) -> None:
        """Evaluate at the end of an epoch and of a phase; save a checkpoint when it is time or a
        signal came. `t` steps are done."""
        self.progress.step()
        ended = t == stop or t % self.epoch_steps == 0
        if ended:
            self._evaluate(phase, t, *self._read(t), t == stop)
        # A signal may come at any time, most likely in an evaluation: look once, after it, so that
        # no run ends without its checkpoint.
        stopping, due = self.ranks.agree(self.stop_signal, self.replay.due())
        save = due or stopping != 0
        if not ended and (save or self.running_loss.full):
            self._read(t)
        if save:
            self.replay.save(phase, t)
        if stopping:
            raise Interrupted(stopping, t)

    def _read(self, t: int) -> tuple[float, float]:
        """Mean training loss and accuracy since the last evaluation."""
        loss, accuracy = self.running_loss.read(t, self._describe)
        self.step_times.end()
        self.progress.at(t - 1, accuracy)
        return loss, accuracy

    @contextmanager
    def _taking_steps(self) -> Iterator[None]:
        self.in_steps = True
        try:
            yield
        finally:
            self.in_steps = False

    def _describe(self, step: int) -> str:
        lr = self.recipe.lr_at(step, self.total)
        return f"step {step} of {self.total}, at learning rate {lr:.4g}"

    def _evaluate(self, phase: int, t: int, loss: float, accuracy: float, last: bool) -> None:
        """Write a line of metrics.jsonl."""
        overlaps = self.exploration.overlaps()
        line: dict[str, Any] = {
            "phase": phase,
            "step": t,
            "epoch": t / self.epoch_steps,
            "lr": self._lr(t - 1),
            "train_loss": loss,
            "train_accuracy": accuracy,
            "dim": self.net.dim,
            "overlap": all_together(overlaps).share,
            "explored": self.exploration.explored(),
            # of each covered weight, in the order of `layers` in result.json
            "trained_by_layer": [w.dim for w in self.net.weights.values()],
            "overlap_by_layer": [round(overlap.share, 4) for overlap in overlaps],
            "training_flops": self.costs.steps + self.costs.scoring,
        }
        self.costs.look_again()
        self.ranks.require_same_net(self.net)
        if self.net.dim != self.best.dim:
            self.best.restart(self.net.dim)
        if self.data.sizes["val"]:
            line |= self.best.update(t, self.net.dim, self.evaluate)
            line |= self.average.evaluated(t, self.evaluate)
        self.running_loss.restart()
        self.progress.evaluated(line, last)
        for observer in self.observers:
            observer.after_evaluation(self, line)
        if self.folder:
            self.folder.append(line)
