"""The HTML report of a run, federated or simulated.

``data`` reads the run folder, ``results`` turns scores into tables and sentences, ``participation``
lists who took part in which round, ``figures`` draws the plots, ``page`` writes ``report.html``.
"""
