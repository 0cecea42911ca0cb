"""Figures of data, training and results: plain arrays in, a matplotlib figure out.

What draws knows nothing of Lightning, and imports matplotlib when a figure is drawn, not before. Where a figure then
goes is :mod:`zoo.figures.publish`'s.
"""
