"""The mathematics: a network through the coordinates that are trained. Needs torch and numpy.

Read coordinates.py, parametrised.py and net.py first.

the verbs                  net.py, on one weight coordinates.py; untrainable.py warns
what follows them          optimizer_state.py gradients.py
the maps E                 transforms.py projections.py
the model and its layers   parametrised.py forward.py layers.py outputs.py buffers.py
a net as tensors           state.py seeded.py fingerprints.py
what is not computed       part.py prefix.py longest_prefix.py
how weights are written    fused.py rewritten.py
sparse products            sparse.py layouts.py
in PyTorch's place         batchnorm.py synchronised.py plain_products.py eager.py
FLOPs                      product_flops.py flop_formulas.py
"""

from dimred.net.net import Net
from dimred.net.state import State

__all__ = ["Net", "State"]
