"""Configuration files of `accelerate launch`."""
