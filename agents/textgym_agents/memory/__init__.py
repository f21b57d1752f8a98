"""What a run needs of memory: predicted before it, and measured in it."""
