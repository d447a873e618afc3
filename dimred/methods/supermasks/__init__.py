"""Strong lottery tickets: a subnetwork that is good without training its weights."""
