"""Modes of tuning side by side: what each trains, needs, costs and reaches."""
