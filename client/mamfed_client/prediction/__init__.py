"""``mamfed-client predict``: run a trained network on a site's own studies.

``sources`` lists the images, ``model`` loads the network, and ``predict`` runs it. ``folder``
stores the results: ``segmentation`` for viewers, ``lesions`` and the record for programs, and
``pictures`` and ``study_page`` for people.
"""
