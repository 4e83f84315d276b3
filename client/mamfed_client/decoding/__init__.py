"""Files -> pixels, in a process that may die of them; ``decode.py`` is its only user outside.

In the child: ``sandbox`` runs, ``hashing`` hashes meanwhile, ``codecs`` chooses a decoder,
``compressed`` calls it after ``codestreams`` and ``pixel_layout`` have read how much there is. In
the parent: ``child`` holds the process, ``answers`` believes nothing unchecked.
"""
