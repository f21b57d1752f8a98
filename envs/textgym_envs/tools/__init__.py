"""`TextGenTools-v0`: answering a prompt in several turns, with tools."""
