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
from typing import TypeVar

from torch import Tensor

from dimred.data.base import Data
from dimred.errors import Interrupted, UserError, counted
from dimred.net import Net, State
from dimred.net.seeded import seed_generators
from dimred.select.schedules import due_every, steps_between
from dimred.storage.folder import RunFolder
from dimred.training.arithmetic import Arithmetic
from dimred.training.average import Average
from dimred.training.batches import Batches, scoring_examples
from dimred.training.evaluate import Best, RunningLoss, evaluate
from dimred.training.exploration import Exploration
from dimred.training.flops import Costs
from dimred.training.make_step import make_step, prepare
from dimred.training.metrics import metrics_of
from dimred.training.observers import Observer, Observers
from dimred.training.patience import Patience
from dimred.training.progress import Progress
from dimred.training.ranks import ALONE, Ranks
from dimred.training.recipe import Recipe
from dimred.training.resume import Followed, Replay, Stateful
from dimred.training.skipped import Skipped
from dimred.training.stop import Stop
from dimred.training.timing import StepTimes

T = TypeVar("T")
When = Callable[[int], bool]  # whether something happens at a step


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
        self.net, self.recipe, self.seed, self.ranks = net, recipe, seed, ranks
        self.data = data = recipe.augmented(data)
        ranks.require_possible(recipe)
        self.epoch_steps = data.steps_per_epoch(recipe.batch_size)
        self.total = recipe.total_steps(self.epoch_steps)
        self.device = next(net.model.parameters()).device
        prepare(net, recipe)
        net.optimizer = self.optimizer = recipe.make_optimizer(net)
        net.optimizer_state.set_lr(recipe.lr_at(0, self.total))
        self._lr_of: int | None = None  # the step whose learning rate all steps have
        # what a step is
        self.running_loss = RunningLoss(recipe, self.total, self.device, ranks)
        self.skipped = Skipped(net, data, recipe, seed, folder.path if folder else None)
        self.batches = Batches(self.skipped, recipe.batch_size, self.epoch_steps, seed, ranks.share)
        self.stepper = make_step(
            net, recipe, self.batches, self.optimizer, self.running_loss, ranks
        )
        self.arithmetic = Arithmetic(net, recipe)
        # what is measured and shown
        self.best, self.average = Best(), Average(net, recipe.ema)
        self.patience = Patience(recipe, data, self.best)
        self.costs = Costs(net, data.shape, data.stored_copies * data.sizes["train"])
        self.exploration, self.step_times = Exploration(net), StepTimes()
        self.progress = Progress(self.total, self.epoch_steps)
        self.observers, self.folder, self.stop = Observers(observers), folder, Stop()
        # what a checkpoint stores
        saved: dict[str, Stateful] = {
            "best": self.best,
            "best_average": self.average.best,
            "running_loss": self.running_loss,
            "costs": self.costs,
            "captured_steps": self.stepper,
            "arithmetic": self.arithmetic,
            "ranks": ranks,
        }
        tensors: dict[str, Followed] = {"exploration": self.exploration, "average": self.average}
        self.replay = Replay(net, tensors, saved, folder, checkpoint_seconds, ranks)
        if folder:
            folder.tell(lambda: {**self.progress.position(), "seconds": self.replay.elapsed()})
        ranks.require_same_net(net)
        # Dropout and other people's models draw from torch's generators; nothing in dimred does.
        seed_generators(seed)

    def __len__(self) -> int:
        """Steps of one whole training."""
        return self.total

    @property
    def steps_done(self) -> int:
        """Optimiser steps of this run, over all training phases."""
        return self.replay.steps_done

    def lr_at(self, t: int) -> float:
        """The learning rate of step t of the present phase."""
        return self.recipe.lr_at(t if self._lr_of is None else self._lr_of, self.total)

    # -- training phases --------------------
    def __call__(self, start: int = 0, stop: int | None = None, lr_of: int | None = None) -> None:
        """Train from step `start` to step `stop` (to the end). UserError unless 0 <= start <= stop
        <= len(self)."""
        for _ in self._phase(start, stop, None, lr_of, pauses=False):
            pass

    def steps(
        self,
        start: int = 0,
        stop: int | None = None,
        dense_grad: When | None = None,
        lr_of: int | None = None,
    ) -> Iterator[int]:
        """Train, and yield each step t at its pause, between its gradients and its update.

        At the pause the weights are theta_t. A change of coordinates counts in this step's update
        already; after net.zero_grad() the step has no update.

        dense_grad: the steps in which net.grads() has the gradients of all covered weights
        lr_of: a step whose learning rate all these steps have
        """
        return self._phase(start, stop, dense_grad, lr_of, pauses=True)

    def _phase(
        self, start: int, stop: int | None, dense_grad: When | None, lr_of: int | None, pauses: bool
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
        executed = self.costs.executed  # what a method executes at its pauses, but not the steps
        with (
            self.stop.after_a_step(),
            self.progress.steps(start, stop, now),
            executed.set(False) as outside,
        ):
            for t in self.batches.steps(self.stepper, now, stop, whole=dense_grad is not None):
                if self.patience.is_lost(t):
                    break
                self._backward(t, dense_grad)
                with executed.set(outside and pauses):
                    yield t
                self._update(t)
                self._after(phase, t + 1, stop)
        self.replay.last_stop = stop

    # -- one step: _backward, the pause, _update --------------------
    def _backward(self, t: int, dense_grad: When | None) -> None:
        """Compute the gradients of step t."""
        dense = dense_grad is not None and dense_grad(t)
        self.ranks.require_same_net(self.net, changed=False)
        self.exploration.look()
        # before dense gradients are collected: these may compute gradients of their own
        self.costs.step(self.recipe.batch_size, dense, self.skipped.prefix)
        self.arithmetic.prepare(self.stepper.backward)
        self.step_times.begin()
        if dense_grad:
            self.net.retain_grad(dense)
        self.observers.before_step(self, t)
        with self.ranks.shares(self.net, self.seed, self.steps_done):
            self.stepper.gradients()
        self.stepper.unscale()
        self.running_loss.count()
        self.observers.after_backward(self, t)

    def _update(self, t: int) -> None:
        """Take the optimiser's step."""
        self.observers.before_update(self, t)
        self.net.optimizer_state.set_lr(self.lr_at(t))
        self.stepper.update()
        self.average.update()
        self.step_times.count()
        self.net.has_trained = True
        self.replay.steps_done += 1
        self.observers.after_update(self, t)

    # -- the end of a step, an epoch, a phase --------------------
    def _after(self, phase: int, t: int, stop: int) -> None:
        """Evaluate at the end of an epoch and of a phase; save a checkpoint when it is time or a
        signal came. `t` steps are done."""
        self.progress.step()
        ended = t == stop or t % self.epoch_steps == 0
        if ended:
            self._evaluate(phase, t, last=t == stop)
        # A signal may come at any time, most likely in an evaluation: look once, after it, so that
        # no run ends without its checkpoint.
        stopping, due = self.ranks.agree(self.stop.signal, self.replay.due())
        save = due or stopping != 0
        if not ended and (save or self.running_loss.full):
            self._read(t)
        if save:
            self.replay.save(phase, t)
        if stopping:
            raise Interrupted(stopping, t)

    def _read(self, t: int) -> tuple[float, float]:
        """Mean training loss and accuracy since the last evaluation."""
        loss, accuracy = self.running_loss.read(t)
        self.step_times.end()
        self.progress.at(t - 1, accuracy)
        return loss, accuracy

    def _evaluate(self, phase: int, t: int, last: bool) -> None:
        """Write a line of metrics.jsonl."""
        loss, accuracy = self._read(t)
        self.ranks.require_same_net(self.net)
        line = metrics_of(self, phase, t, loss, accuracy)
        self.running_loss.restart()
        self.costs.look_again()
        self.progress.evaluated(line, last)
        self.observers.after_evaluation(self, line)
        if self.folder:
            self.folder.append(line)

    # -- what methods call besides --------------------
    def period(self, every: float) -> int:
        """Steps between two times: `every` or, below 1, that fraction of training."""
        return steps_between(every, self.total)

    def every(self, every: float, until: float = 1.0, key: str = "method.update_every") -> When:
        """A function that tells whether something periodic is due at step t: never at step 0, and
        not after the fraction `until` of training. UserError, naming the key, if it would never be
        due."""
        return due_every(every, until, self.total, key)

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
        return scoring_examples(self.data, examples, self.seed, augment)

    def evaluate(self, split: str) -> tuple[float, float]:
        """Mean loss and accuracy (a fraction) on "train", "val" or "test", every example counted
        once."""
        source, part = self.skipped.current()
        return evaluate(self.net, source, self.recipe, split, part, self.ranks)
