"""Learning from what is written: demonstrations (SFT) and preferences (DPO), by TRL's trainers."""
