"""Restoration: clicks found and removed, gaps filled; nothing is separated."""

from rtsep.restoration.magnitudes import alternating_minimisation, convex_relaxation
from rtsep.restoration.repair import find_clicks, restore
from rtsep.restoration.stream import ClickRemover

__all__ = ["ClickRemover", "alternating_minimisation", "convex_relaxation", "find_clicks", "restore"]
