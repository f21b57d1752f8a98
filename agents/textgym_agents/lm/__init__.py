"""PPO on language models: policy/value network, generation engine, cold start and trainer."""
