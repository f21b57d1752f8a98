"""The run directory: what a run was, what it measured, and where it can go on."""
