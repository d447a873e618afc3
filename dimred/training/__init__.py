"""The training loop, recipes, checkpoints and costs.

Read loop.py first. It asks one object for each of these:

the recipe              recipe.py recipe_limits.py learning_rates.py
a step                  step.py make_step.py capture.py tape.py loss_scaling.py arithmetic.py
the same bits on GPUs   deterministic.py
its batches             batches.py, without what need not be computed: skipped.py frozen.py seen.py
on several processes    ranks.py group.py
evaluation              evaluate.py average.py patience.py metrics.py
what is trained, costs  exploration.py flops.py step_flops.py timing.py
interruption, resuming  stop.py resume.py start_of_run.py
to watch a run          observers.py progress.py sweep_label.py
"""
