"""Chapters: their settings, the claims that they settle, what they hand over, and how figures look."""
