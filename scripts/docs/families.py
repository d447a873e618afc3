"""The families of methods in the order of the site, and when to use one of them."""

from __future__ import annotations

#: family: when to use its methods
WHEN = {
    "Reference networks": "Train `dense` for the accuracy to compare with, and `magnitude_after` "
    "for the simplest pruned network: where a method of another family does not beat it at equal "
    "FLOPs, its choice of weights does not pay.",
    "Pruning at initialisation": "Use it when training has to be sparse from the first step on, "
    "at a fixed mask: nothing changes during training, so a step costs what `d` weights cost. "
    "Always compare with `random` and with `method.ablation=shuffle`, which keeps only the "
    "densities of the layers.",
    "Dynamic sparse training": "Use it when training has to be sparse throughout and accuracy "
    "matters more than a fixed mask: the mask moves to better weights as training shows them. "
    "Longer training helps these methods more than others.",
    "Gradual pruning": "Use it when dense training is affordable and the final network has to be "
    "sparse: the usual choice, and a strong baseline, for inference. Training is not cheaper until "
    "weights are pruned.",
    "Lottery tickets": "Use it to study which weights could have been trained alone, or for the "
    "best sparse network at any training cost: a run consists of several trainings. On larger "
    "networks, rewind to an early step and not to initialisation (`method.rewind_step`).",
    "Learned sparsity": "Use it when the density of each layer should result from training "
    "rather than from an allocation. At a given `sparsity`, a strength is fitted by the schedule "
    "or the last weights are cut at the end; the result says how many.",
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
    "`subspace` to train a whole line or simplex of networks at the cost of one.",
    "Given masks": "Use it to train a mask that another run found: to transfer a ticket to other "
    "data, or to tell whether a mask or its weights make the difference.",
}
FAMILIES = list(WHEN)
