"""Restoration: clicks found and removed, gaps filled; nothing is separated."""

from rtsep.restoration.magnitudes import alternating_minimisation, convex_relaxation
from rtsep.restoration.repair import find_clicks, restore

__all__ = ["alternating_minimisation", "convex_relaxation", "find_clicks", "restore"]
