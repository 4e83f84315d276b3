"""Decode the pixel data of a DICOM image into stored values."""
