"""The pixel data of a DICOM image -> its stored values."""
