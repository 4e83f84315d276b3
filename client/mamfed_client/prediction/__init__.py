"""``mamfed-client predict``: a trained network's answer on a site's own studies.

``sources`` says what there is to look at, ``model`` what looks at it, ``predict`` does it image by
image, ``folder`` keeps the results: ``segmentation`` for the viewer, ``lesions`` and the record for
programs, ``pictures`` and ``study_page`` for people.
"""
