"""The page that a run ends with, of a real federation or of a simulated one.

``data`` reads a run folder, ``results`` turns figures into tables and sentences, ``participation``
says who took part when, ``figures`` draws, ``page`` writes ``report.html``.
"""
