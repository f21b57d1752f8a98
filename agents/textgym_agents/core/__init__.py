"""The shared core: buffer, advantages, losses, KL control and the update loop.

Everything here works on masked tensors and knows nothing of models or environments.
"""
