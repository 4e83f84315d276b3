import hashlib
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, SecondaryCaptureImageStorage

from mamfed_client.annotations.shapes import Annotation, Shape
from mamfed_client.imaging.reader import read_mammogram
from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_client.sandbox import protocol
from mamfed_client.sandbox.decoder import Decoder
from mamfed_client.sandbox.protocol import parse_answer

STORED = np.arange(181 * 131).reshape(181, 131) % 4096
SQUARE = Shape("polygon", ((10, 10), (10, 20), (20, 20), (20, 10)))


@pytest.fixture(scope="module")
def decoder():
    with Decoder() as decoder:
        yield decoder


@pytest.fixture
def dicom(tmp_path, drawing):
    def write(name="a.dcm", stored=STORED, **elements):
        elements = {"ImageLaterality": "L", "Modality": "MG"} | elements
        drawing.dicom(tmp_path / name, stored, **elements)
        return tmp_path / name

    return write


@contextmanager
def refused(reason, words=""):
    with pytest.raises(FileRejected, match=words or None) as caught:
        yield
    assert caught.value.reason is reason
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


# Mammograms


def test_a_mammogram_is_what_reading_it_here_gives_and_the_hash_is_of_its_file(decoder, dicom):
    path = dicom()
    mammogram, sha256 = decoder.mammogram(path)
    here = read_mammogram(path)
    assert np.array_equal(mammogram.grey, here.grey)
    assert mammogram.grey.dtype == np.uint16
    assert mammogram.valid is here.valid is None
    assert mammogram.facts == here.facts
    assert (mammogram.facts.laterality, mammogram.facts.patient) == ("L", "secret-id")
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_padding_comes_back_as_invalid(decoder, dicom):
    stored = STORED.copy()
    stored[:, -30:] = 4095
    mammogram, _ = decoder.mammogram(dicom(stored=stored, PixelPaddingValue=4095))
    assert mammogram.valid.dtype == bool
    assert not mammogram.valid[:, -30:].any()
    assert mammogram.valid[:, :-30].mean() > 0.99


def test_an_image_is_not_changed_by_the_next_one(decoder, dicom):
    first, _ = decoder.mammogram(dicom())
    kept = first.grey.copy()
    decoder.mammogram(dicom("b.dcm", STORED[::-1]))
    assert np.array_equal(first.grey, kept)


def test_a_picture_is_read_by_its_suffix(decoder, tmp_path, drawing):
    drawing.png(tmp_path / "a.png", drawing.breast()[0], bits=16)
    mammogram, _ = decoder.mammogram(tmp_path / "a.png")
    assert np.array_equal(mammogram.grey, np.rint(drawing.breast()[0] * 65535))


def test_what_is_allowed_gets_through(decoder, dicom):
    path = dicom(SOPClassUID=SecondaryCaptureImageStorage)
    with refused(Reason.SECONDARY_CAPTURE):
        decoder.mammogram(path)
    mammogram, _ = decoder.mammogram(path, frozenset({Reason.SECONDARY_CAPTURE}))
    assert mammogram.grey.shape == STORED.shape


def test_odd_and_relative_names_are_found(decoder, dicom, tmp_path, monkeypatch):
    odd = os.fsdecode(bytes(tmp_path) + b'/\xff \n".dcm')
    dicom().rename(odd)
    assert decoder.mammogram(Path(odd))[0].grey.shape == STORED.shape
    dicom("b.dcm")
    monkeypatch.chdir(tmp_path)
    assert decoder.mammogram(Path("b.dcm"))[0].grey.shape == STORED.shape


def test_a_missing_file_a_folder_and_a_huge_file_are_refused(decoder, tmp_path):
    with refused(Reason.MISSING_IMAGE, "no such file"):
        decoder.mammogram(tmp_path / "a.dcm")
    with refused(Reason.MISSING_IMAGE, "Is a directory"):
        decoder.mammogram(tmp_path)
    with (tmp_path / "b.dcm").open("wb") as file:
        file.truncate((512 << 20) + 1)
    with refused(Reason.TOO_LARGE, "512 MiB"):
        decoder.mammogram(tmp_path / "b.dcm")


# The process


def test_a_file_that_takes_too_long_is_given_up_and_the_next_is_read(dicom):
    with Decoder(deadline_s=2) as decoder:
        decoder.mammogram(dicom())
        os.kill(decoder._child.pid, signal.SIGSTOP)
        with refused(Reason.TOO_SLOW, "more than 2 seconds"):
            decoder.mammogram(dicom())
        assert decoder.mammogram(dicom())[0].grey.shape == STORED.shape


def test_jpeg_ls_without_an_end_is_refused_before_its_decoder_looks_for_one(dicom):
    pixels = np.zeros((320, 240), np.uint16)
    pixels[100:150, 20:90] = 2000 + np.random.default_rng(0).integers(0, 16, (50, 70))
    stream = bytes(imagecodecs.jpegls_encode(pixels))
    cut = encapsulate([stream[:-597]])  # found by trying: takes 3.5 s
    with Decoder(deadline_s=2) as decoder, refused(Reason.TRUNCATED):
        decoder.mammogram(dicom(stored=pixels, PixelData=cut, TransferSyntaxUID=JPEGLSLossless))


def test_a_process_that_does_not_even_listen_is_given_up(dicom):
    many = tuple(Shape("polygon", SQUARE.points) for _ in range(5000))
    with Decoder(deadline_s=1) as decoder:
        decoder.mammogram(dicom())
        os.kill(decoder._child.pid, signal.SIGSTOP)
        with refused(Reason.TOO_SLOW):
            decoder.mask([Annotation(shapes=many)], 40, 50)


def test_a_file_that_ends_the_process_is_refused_and_the_next_is_read(dicom):
    with Decoder() as decoder:
        decoder.mammogram(dicom())
        child = decoder._child.pid
        os.kill(child, signal.SIGSTOP)  # waits for the signal that ends it
        threading.Timer(0.3, os.kill, (child, signal.SIGSEGV)).start()
        threading.Timer(0.4, os.kill, (child, signal.SIGCONT)).start()
        with refused(Reason.DECODER_CRASHED, "SIGSEGV"):
            decoder.mammogram(dicom())
        assert decoder.mammogram(dicom())[0].grey.shape == STORED.shape
        assert decoder._child.pid != child


@pytest.mark.parametrize("kind", ["mammogram", "mask"])
def test_a_pipe_is_refused_at_once(kind, tmp_path):
    pipe = tmp_path / "pipe.dcm"
    os.mkfifo(pipe)
    reason = Reason.MISSING_IMAGE if kind == "mammogram" else Reason.MISSING_MASK
    with Decoder() as decoder, refused(reason, "is a named pipe"):
        decoder.mammogram(pipe) if kind == "mammogram" else decoder.mask([Annotation(pipe)], 9, 9)


def test_a_process_that_died_between_two_files_is_replaced_unnoticed(dicom):
    with Decoder() as decoder:
        decoder.mammogram(dicom())
        process = decoder._child._process
        process.kill()
        process.wait()
        assert decoder.mammogram(dicom())[0].grey.shape == STORED.shape


def test_a_process_that_keeps_too_much_memory_is_replaced(dicom, monkeypatch):
    with Decoder() as decoder:
        decoder.mammogram(dicom())
        child = decoder._child.pid
        decoder.mammogram(dicom())
        assert decoder._child.pid == child
        monkeypatch.setattr("mamfed_client.sandbox.decoder.MAX_RESIDENT", 1 << 20)
        decoder.mammogram(dicom())
        assert decoder._child.pid != child


def test_an_answer_without_sense_is_not_believed(decoder, dicom, monkeypatch):
    monkeypatch.setattr(protocol, "MAX_COUNT", 10)  # so that 181 rows are none
    with refused(Reason.DECODER_CRASHED, "answer is invalid"):
        decoder.mammogram(dicom())
    monkeypatch.undo()
    assert decoder.mammogram(dicom())[0].grey.shape == STORED.shape


@pytest.mark.parametrize("threads", [1, 3])
def test_jpeg2000_is_the_same_by_any_number_of_threads(dicom, threads):
    stored = np.random.default_rng(0).integers(0, 2048, (400, 300)).astype(np.uint16)
    options = {"codecformat": "j2k", "level": 0, "reversible": True, "bitspersample": 12}
    stream = imagecodecs.jpeg2k_encode(stored, **options)
    path = dicom(stored=stored, TransferSyntaxUID=JPEG2000Lossless, PixelData=encapsulate([stream]))
    with Decoder(threads=threads) as decoder:
        mammogram, sha256 = decoder.mammogram(path)
    np.testing.assert_array_equal(mammogram.grey, read_mammogram(dicom("b.dcm", stored)).grey)
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_closing_ends_the_process(dicom):
    decoder = Decoder()
    decoder.mammogram(dicom())
    process = decoder._child._process
    decoder.close()
    assert process.returncode == -signal.SIGKILL
    decoder.close()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("threads", [1, 3])
def test_the_process_uses_as_many_threads_as_it_may(dicom, threads, executed):
    with Decoder(threads=threads) as decoder:
        decoder.mammogram(dicom())
        environment = Path(f"/proc/{decoder._child.pid}/environ").read_bytes().split(b"\0")
    for library in ("OPJ_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):
        assert f"{library}={threads}".encode() in environment


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_process_is_limited(decoder, dicom):
    decoder.mammogram(dicom())
    process = Path(f"/proc/{decoder._child.pid}")
    limits = {
        line[:25].strip(): line[25:].split()[:2]
        for line in (process / "limits").read_text().splitlines()
    }
    assert limits["Max address space"] == [str(3 << 30)] * 2
    assert limits["Max core file size"] == limits["Max file size"] == ["0", "0"]
    assert limits["Max open files"] == ["64", "64"]
    assert os.getsid(decoder._child.pid) == decoder._child.pid  # Ctrl-C does not reach it
    assert os.readlink(process / "fd" / "2") == os.devnull


def sandbox(file, *arguments):
    command = [
        sys.executable,
        "-P",
        "-m",
        "mamfed_client.sandbox.worker",
        str(file.fileno()),
        *arguments,
    ]
    file.truncate(1000)
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[file.fileno()]
    )


def test_the_process_ends_when_its_parent_has_gone(tmp_path):
    with (tmp_path / "buffer").open("w+b") as file:
        said, _ = sandbox(file, "20").communicate(b"")
    assert said == b'{"ready": true}\n'


def test_a_request_without_sense_is_answered_with_a_reason(tmp_path):
    requests = b'[]\n{"op": "eat"}\n{\n{"op": "mask", "annotations": 3, "rows": 1, "columns": 1}\n'
    with (tmp_path / "buffer").open("w+b") as file:
        said, _ = sandbox(file, "20").communicate(requests)
    _, *lines = said.splitlines()
    assert len(lines) == 4
    for line in lines:
        with refused(Reason.UNREADABLE_IMAGE, "Error while decoding"):
            parse_answer(line)


def test_more_memory_than_the_process_may_have_is_a_reason(tmp_path):
    request = b'{"op": "mask", "annotations": [], "rows": 70000, "columns": 70000}\n'
    with (tmp_path / "buffer").open("w+b") as file:
        said, _ = sandbox(file, "20").communicate(request)
    with refused(Reason.TOO_LARGE, "decoding needs more than"):
        parse_answer(said.splitlines()[1])


def test_a_process_that_ran_out_of_memory_is_replaced(dicom, tmp_path):
    with (tmp_path / "b.dcm").open("wb") as file:
        file.truncate((512 << 20) + 1)
    with Decoder() as decoder:
        decoder.mammogram(dicom())
        child = decoder._child.pid
        with refused(Reason.TOO_LARGE):
            decoder.mammogram(tmp_path / "b.dcm")
        decoder.mammogram(dicom())
        assert decoder._child.pid != child


def test_the_process_loads_no_http_client(tmp_path, executed):
    command = [sys.executable, "-P", "-X", "importtime", "-m", "mamfed_client.sandbox.worker"]
    with (tmp_path / "buffer").open("w+b") as file:
        file.truncate(1000)
        done = subprocess.run(
            [*command, str(file.fileno()), "20"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            pass_fds=[file.fileno()],
            check=True,
        )
    loaded = {line.rpartition(b"|")[2].strip() for line in done.stderr.splitlines()}
    assert b"pydicom.data.download" in loaded
    assert b"urllib3" not in loaded  # what requests loads


def test_the_process_imports_neither_torch_nor_flower():
    code = "import sys, mamfed_client.sandbox.worker; print({'torch', 'flwr'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, check=True)
    assert done.stdout == b"set()\n"


# Masks


def test_shapes_become_a_mask_and_their_hash_follows_them(decoder):
    marked, sha256 = decoder.mask([Annotation(shapes=(SQUARE,))], 40, 50)
    assert marked.mask.dtype == bool
    assert marked.mask.shape == (40, 50)
    assert marked.mask[15, 15]
    assert not marked.mask[5, 5]
    assert marked.mask.sum() == 10 * 10
    assert decoder.mask([Annotation(shapes=(SQUARE,))], 40, 50)[1] == sha256
    moved = Shape("polygon", ((11, 10), *SQUARE.points[1:]))
    assert decoder.mask([Annotation(shapes=(moved,))], 40, 50)[1] != sha256
    assert decoder.mask([Annotation(shapes=(SQUARE,), image_name="b")], 40, 50)[1] != sha256


def test_the_masks_hash_follows_its_files_bytes_and_not_their_place(decoder, tmp_path, drawing):
    drawing.png(tmp_path / "a.png", drawing.lesion().astype(float))
    drawing.png(tmp_path / "b" / "c.png", drawing.lesion().astype(float))
    drawing.png(tmp_path / "d.png", drawing.lesion()[::-1].astype(float))
    hashes = [
        decoder.mask([Annotation(tmp_path / name)], 181, 131)[1]
        for name in ("a.png", "b/c.png", "d.png")
    ]
    assert hashes[0] == hashes[1] != hashes[2]
    marked, _ = decoder.mask([Annotation(tmp_path / "a.png")], 181, 131)
    assert np.array_equal(marked.mask, drawing.lesion())


def test_boxes_and_points_are_counted(decoder):
    shapes = (SQUARE, Shape("box", ((1, 1), (9, 9))), Shape("point", ((30, 30),)))
    marked, _ = decoder.mask([Annotation(shapes=shapes)], 40, 50)
    assert (marked.resampled, marked.boxes, marked.points) == (0, 1, 1)


def test_masks_that_cannot_be_used_are_refused(decoder, tmp_path):
    with refused(Reason.MISSING_MASK):
        decoder.mask([Annotation(tmp_path / "a.png")], 40, 50)
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    with refused(Reason.UNREADABLE_MASK):
        decoder.mask([Annotation(tmp_path / "a.png")], 40, 50)
    with refused(Reason.EMPTY_MASK):
        decoder.mask([], 40, 50)


def test_thousands_of_shapes_go_through_the_pipe(decoder):
    many = tuple(Shape("polygon", SQUARE.points) for _ in range(5000))
    marked, _ = decoder.mask([Annotation(shapes=many)], 40, 50)
    assert marked.mask[15, 15]
