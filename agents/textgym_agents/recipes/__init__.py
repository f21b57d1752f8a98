"""Recipes: runs that go on with each other, measured alike after each, and guarded."""
