"""Explorables: interactive figures that need no kernel. The page runs their scripts on a chapter's data."""

from dmfkit.explorables.compress import CompressionRace, CompressIt, ErrorCurve
from dmfkit.explorables.explorable import BUDGET, Explorable
from dmfkit.explorables.gap import DepthGap
from dmfkit.explorables.inside import InsideWeights
from dmfkit.explorables.panels import PickAPanel
from dmfkit.explorables.race import DepthRace
from dmfkit.explorables.schatten import SchattenCorner

__all__ = [
    "BUDGET",
    "CompressIt",
    "CompressionRace",
    "DepthGap",
    "DepthRace",
    "ErrorCurve",
    "Explorable",
    "InsideWeights",
    "PickAPanel",
    "SchattenCorner",
]
