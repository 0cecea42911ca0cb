"""Figures of data, training and results: plain arrays in, a matplotlib figure out.

Nothing here knows Lightning, and matplotlib is imported when a figure is drawn, not before.
"""
