"""What runs inside the sandbox: the standard library only, and nothing of textgym is imported.

The modules are sent to the worker as code, see `carried`; none of them is a file in the sandbox.
"""
