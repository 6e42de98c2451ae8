"""One file per recipe: what a command does, from settings to results."""
