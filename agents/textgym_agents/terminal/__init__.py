"""`textgym view`: a run in the terminal, for people on a server."""
