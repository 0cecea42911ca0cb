"""One HTML page about one run or several: result, learning history, figures, configuration, environment.

``runs`` and what it imports read, ``page`` and what it imports write; the page needs nothing beside itself.
"""
