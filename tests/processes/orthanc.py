"""A real Orthanc in a network of its own, and mamfed-client in the same network.

Orthanc 1.10 listens on every address, so it gets a network whose only address is loopback.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import nursery

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
HTTP, DICOM, LISTENER = 8042, 4242, 11112
USER, PASSWORD = "mamfed", "open sesame"
ASK = f"""
import sys, urllib.request as u, base64
for line in sys.stdin.read().splitlines():
    method, path, file = line.split(chr(9))
    data = open(file, "rb").read() if file else None
    request = u.Request("http://127.0.0.1:{HTTP}" + path, method=method, data=data)
    login = base64.b64encode(b"{USER}:{PASSWORD}").decode()
    request.add_header("Authorization", "Basic " + login)
    answer = u.urlopen(request, timeout=30).read()
sys.stdout.buffer.write(answer)
"""
"""Sends the requests on standard input, and prints the last answer."""


def missing():
    """Return what is missing to run one; empty if nothing is."""
    if not shutil.which("Orthanc") or not PLUGIN.exists():
        return "no Orthanc with its DICOMweb plugin (apt: orthanc, orthanc-dicomweb)"
    if not (shutil.which("ip") and shutil.which("unshare") and shutil.which("nsenter")):
        return "no ip, unshare or nsenter"
    isolated = subprocess.run(["unshare", "--net", "--map-root-user", "true"], check=False)
    return "no network of its own" if isolated.returncode else ""


class Orthanc:
    """An archive that runs until it is killed, and starts again with what it has stored."""

    def __init__(self, folder: Path, **settings):
        self.folder = folder
        self.settings = settings
        for name in ("store", "clean"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self.holder = subprocess.Popen(
            ["unshare", "--net", "--map-root-user", "sh", "-c",
             "ip link set lo up && echo up && exec sleep 3600"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.holder.stdout.readline() == "up\n"
        self.process = None
        self._nursery = ExitStack()
        self._nursery.enter_context(nursery.entering(*self.enter()))
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def inside(self, *command, **options):
        """Run a command in Orthanc's network."""
        return subprocess.run(self.enter(*command), check=False, **options)

    def enter(self, *command):
        network = ["-t", str(self.holder.pid), "-U", "-n", "--preserve-credentials", "--"]
        return ["nsenter", *network, *map(str, command)]

    def start(self, **settings):
        """Start it, or start it again with other settings."""
        self.settings |= settings
        config = {
            "StorageDirectory": str(self.folder / "store"),
            "IndexDirectory": str(self.folder / "store"),
            "HttpPort": HTTP,
            "DicomPort": DICOM,
            "DicomAet": "ARCHIVE",
            "DicomCheckCalledAet": True,
            "DicomAlwaysAllowEcho": False,
            "DicomAlwaysAllowStore": False,
            "DicomModalities": {"mamfed": {
                "AET": "MAMFED", "Host": "127.0.0.1", "Port": LISTENER, "AllowEcho": True,
                "AllowFind": True, "AllowGet": True, "AllowMove": True, "AllowStore": True,
            }},
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {USER: PASSWORD},
            "Plugins": [str(PLUGIN)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "StudiesMetadata": "Full"},
            **self.settings,
        }  # fmt: skip
        (self.folder / "orthanc.json").write_text(json.dumps(config))
        log = (self.folder / "orthanc.log").open("ab")
        self.process = subprocess.Popen(
            self.enter("Orthanc", self.folder / "orthanc.json"), stdout=log, stderr=log
        )
        for _ in range(300):
            if not self._request("GET\t/system\t").returncode:
                return
            assert self.process.poll() is None, (self.folder / "orthanc.log").read_text()[-2000:]
            time.sleep(0.1)
        raise TimeoutError("Orthanc does not answer")

    def kill(self):
        """End it at once, as a power cut does."""
        self.process.kill()
        self.process.wait()

    def close(self):
        self._nursery.close()
        if self.process is not None and self.process.poll() is None:
            self.kill()
        self.holder.kill()
        self.holder.wait()

    def ask(self, path, method="GET"):
        """Return Orthanc's answer to a request."""
        done = self._request(f"{method}\t{path}\t")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout else None

    def store(self, files):
        """Store files."""
        done = self._request("\n".join(f"POST\t/instances\t{file}" for file in files))
        assert done.returncode == 0, done.stderr

    def _request(self, lines):
        return self.inside(
            sys.executable, "-c", ASK, input=lines.encode(), capture_output=True, timeout=120
        )

    def client(self, *words, **options):
        """Run mamfed-client in Orthanc's network."""
        return self.command("mamfed-client", *words, **options)

    def command(self, program, *words, **options):
        """Run a program of ours in Orthanc's network."""
        path = Path(sys.executable).with_name(program)
        return self.inside(path, *words, capture_output=True, text=True, timeout=600, **options)


def write_home(folder: Path, **archive):
    """Write a site's home that names the archive by both ways; keys of ``archive`` override."""
    folder.mkdir(parents=True)
    (folder / "keys").mkdir()
    secret = folder / "keys" / "pacs"
    secret.write_text(PASSWORD + "\n")
    secret.chmod(0o600)
    (folder / "data").mkdir()
    known = {
        "dicomweb": {
            "url": f"http://127.0.0.1:{HTTP}/dicom-web",
            "user": USER,
            "password_file": "keys/pacs",
        },
        "dimse": {"host": "127.0.0.1", "port": DICOM, "called": "ARCHIVE", "calling": "MAMFED"},
        "move": {"address": "127.0.0.1", "port": LISTENER, "callers": ["ARCHIVE"]},
        "max_per_minute": 100_000,
        **archive,
    }
    document = {"name": "north", "data": [{"name": "a", "folder": "data"}], "archive": known}
    (folder / "site.yaml").write_text(json.dumps(document))
    return folder
