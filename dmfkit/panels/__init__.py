"""Panels for a running notebook: choose settings, train with the book's own engine, watch it, stop it."""

from dmfkit.panels.live import has_live_front_end
from dmfkit.panels.panel import TrainingPanel

__all__ = ["TrainingPanel", "has_live_front_end"]
