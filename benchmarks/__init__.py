"""Speeds, side by side in one run; nothing here is asserted, and no test depends on a time."""
