"""Engines that sample from a mirror of the policy: vLLM in this process, or servers beside it."""
