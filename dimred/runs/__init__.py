"""From a configuration to a result in a run folder."""
