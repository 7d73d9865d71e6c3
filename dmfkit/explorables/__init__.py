"""Explorables: interactive figures that need no kernel. The page runs their scripts on a chapter's data."""

from dmfkit.explorables.explorable import BUDGET, Explorable
from dmfkit.explorables.gap import DepthGap
from dmfkit.explorables.panels import PickAPanel
from dmfkit.explorables.schatten import SchattenCorner

__all__ = ["BUDGET", "DepthGap", "Explorable", "PickAPanel", "SchattenCorner"]
