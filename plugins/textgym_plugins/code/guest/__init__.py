"""What runs inside the sandbox: the standard library only, and nothing of textgym is imported.

The modules are sent to the worker as code, see `carried`; none of them is a file in the sandbox.
What they import is in the memory of every fork, which is why it is little: `_socket`, say, and not
the enumerations of `socket` above it.
"""
