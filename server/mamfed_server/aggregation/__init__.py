"""The sites' updates -> validated, weighted and averaged weights."""
