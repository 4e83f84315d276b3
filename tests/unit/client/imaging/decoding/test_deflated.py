import io
import zlib

import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import FileMetaDataset

from mamfed_client.imaging.decoding.pixel_data import MAX_INFLATED, check_deflated
from mamfed_client.imaging.rejections import FileRejected, Reason


def deflated(body):
    """A file that says it is deflated, of any deflated bytes."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = meta.MediaStorageSOPInstanceUID = "1.2"
    file = io.BytesIO()
    pydicom.filewriter.write_file_meta_info(file, meta, enforce_standard=True)
    return bytes(128) + b"DICM" + file.getvalue() + body


def test_a_deflated_file_may_inflate_to_a_mammogram_and_not_to_gigabytes():
    zeros = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = zeros.compress(bytes(1 << 24)) + zeros.flush(zlib.Z_FULL_FLUSH)
    count = MAX_INFLATED >> 24
    check_deflated(deflated(block * count + zeros.flush()))
    with pytest.raises(FileRejected, match="256 MiB") as caught:
        check_deflated(deflated(block * (count + 1)))
    assert caught.value.reason is Reason.TOO_LARGE


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (zlib.compress(bytes(9000), wbits=-15)[:-3], Reason.TRUNCATED),
        (b"\xff" * 50, Reason.UNREADABLE_IMAGE),
    ],
)
def test_broken_deflated_files_are_refused(body, reason):
    with pytest.raises(FileRejected) as caught:
        check_deflated(deflated(body))
    assert caught.value.reason is reason


@pytest.mark.parametrize("data", [b"", b"\x89PNG", bytes(128) + b"DICM", bytes(5000)])
def test_other_files_are_none_of_its_business(data):
    check_deflated(data)
