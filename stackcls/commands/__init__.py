"""The commands, a few in each module: options in, one stage run, its result printed."""
