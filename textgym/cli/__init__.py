"""The command line `textgym`."""
