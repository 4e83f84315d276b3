"""The HTML report of a run, federated or simulated.

``data`` reads the run folder, ``results`` reads and compares the scores, ``result_tables`` lays
them out, ``participation`` lists who took part in which round, ``figures`` draws the plots,
``page`` writes ``report.html``.
"""
