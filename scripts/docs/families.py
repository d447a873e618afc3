"""The families of methods in the order of the site, and when to use one of them."""

from __future__ import annotations

#: family: when to use its methods
WHEN = {
    "Reference networks": "Train `dense` for the accuracy to compare with, and `magnitude_after` "
    "for the simplest pruned network: where a method of another family does not beat it at equal "
    "FLOPs, its choice of weights does not pay.",
    "Pruning at initialisation": "Use it when training has to be sparse from the first step on, "
    "at a fixed mask: nothing changes during training, so a step has the FLOPs of `d` weights. "
    "`freezenet` holds the others at their initial values instead of zero. Always compare with "
    "`random` and with `method.ablation=shuffle`, which keeps only the densities of the layers.",
    "Dynamic sparse training": "Use it when training has to be sparse throughout and accuracy "
    "matters more than a fixed mask: the mask moves to better weights as training shows them. "
    "They gain from longer training.",
    "Gradual pruning": "Use it when dense training is affordable and the final network has to be "
    "sparse: the usual choice, and a strong baseline, for inference. Training is not cheaper until "
    "weights are pruned.",
    "Lottery tickets": "Use it to study which weights could have been trained alone, or for the "
    "best sparse network at any training cost: a run consists of several trainings. On larger "
    "networks, rewind to an early step and not to initialisation (`method.rewind_step`).",
    "Learned sparsity": "Use it when the density of each layer should result from training "
    "rather than from an allocation. If a method does not reach the given `sparsity` by "
    "itself, a final pruning does; `left_to_cut` in `result.json` is its share.",
    "Freezing": "Use it to train few numbers of a network that stays dense: less memory for "
    "gradients and optimiser state, and small files, since frozen initial weights are stored as "
    "a seed. Inference costs as much as that of the dense network.",
    "Supermasks": "Use it to study what untrained weights can do: scores are trained, weights "
    "never are. The trained network is a seed and a mask, so its file is very small.",
    "Structured pruning": "Use it when inference has to be faster on ordinary hardware: whole "
    "channels are removed, and `dimred export FORMAT=compacted-channels` writes a smaller dense "
    "model. Accuracy falls earlier than with single weights.",
    "N:M sparsity": "Use it for GPUs whose tensor cores skip two of four weights (2:4 from Ampere "
    "on). The sparsity is n/m in every group, so it does not exceed 50 % for 2:4.",
    "Subspaces": "Use `intrinsic_dimension` to measure how many numbers a problem needs, and "
    "`subspace` to train a whole line, curve or simplex of networks at once.",
    "Given masks": "Use it to train a mask that another run found: to transfer a ticket to other "
    "data, or to tell whether a mask or its weights make the difference.",
}
FAMILIES = list(WHEN)

#: what sets a method apart in its family
APART = {
    "dense": "Every comparison needs this run.",
    "random": "Every score has to beat it.",
    "magnitude": "It needs no data, and is a baseline for scores that do.",
    "snip": "The usual baseline of the family: one batch, one gradient.",
    "grasp": "Choose it to score by the gradient flow after pruning and not by the loss.",
    "synflow": "It needs no data, and is made to avoid layer collapse at high sparsity.",
    "iter_snip": "A pruned weight never returns. Where that empties layers, use `force`.",
    "force": "Pruned weights may return in later rounds, unlike those of `iter_snip`.",
    "freezenet": "Choose it over `snip` at extreme sparsity: both train the same weights.",
    "rigl": "The usual choice of the family. `set` and `mest` need no dense gradients.",
    "set": "It needs no dense gradients. Growing at random explores more and finds less at high "
    "sparsity than growing by gradients.",
    "itop_rigl": "Choose it for long training: updates are rare and large.",
    "srigl": "Choose it for kernels that need as many inputs for every neuron.",
    "granet": "It starts denser than the others, so training costs more.",
    "topkast": "Choose it where no pass may be dense, the backward pass included.",
    "gmp": "The usual baseline of the family.",
    "imp": "Rounds follow from `sparsity` and `method.prune_rate`, and each is a training.",
    "early_bird": "It continues with the ticket that it finds, so a run is one training.",
    "edge_popup": "The usual baseline of the family.",
    "last_layer": "The smallest cost of training; also a baseline for features at initialisation.",
    "intrinsic_dimension": "`method.dim` is the number of coordinates.",
}
