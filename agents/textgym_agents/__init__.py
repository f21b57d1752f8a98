"""First-party part of textgym."""
