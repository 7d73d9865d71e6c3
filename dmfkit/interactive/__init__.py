"""Figures that a reader moves: explorables, which need no kernel, and the training panel of a running notebook.

An explorable's script runs in the page, on a chapter's data; the panel trains with the book's own engine.
"""

from dmfkit.interactive.compression_figures import CompressionRace, CompressIt, ErrorCurve
from dmfkit.interactive.depth_race import DepthRace
from dmfkit.interactive.explorable import BUDGET, Explorable
from dmfkit.interactive.inside_weights import InsideWeights
from dmfkit.interactive.pick_a_panel import PickAPanel
from dmfkit.interactive.small_figures import DepthGap, SchattenCorner
from dmfkit.interactive.training_panel import TrainingPanel, has_live_front_end

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
    "TrainingPanel",
    "has_live_front_end",
]
