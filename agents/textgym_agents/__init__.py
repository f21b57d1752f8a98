"""Agents of textgym: one PPO core on masked tensors, and the language models that it trains."""
