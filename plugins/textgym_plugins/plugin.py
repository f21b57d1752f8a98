"""Registers the first-party rewards and prompt sources, through the door that everyone uses."""
