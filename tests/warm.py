"""Done once by the process that all commands of the tests are forked from: Hydra finds its plugins
and builds its parser."""

from dimred.runs.config.composition import composed

composed(["recipe.steps=1"])
