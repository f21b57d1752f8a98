"""What runs inside the sandbox: the standard library only, and nothing of textgym is imported.

The folder alone is mounted into the sandbox, read-only; the packages above it are empty there.
"""
