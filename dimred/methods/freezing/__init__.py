"""Train a part of the network and freeze the rest."""
