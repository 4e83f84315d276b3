"""Store files in Orthanc and print what it makes of them: run in a network of its own.

``unshare --net --map-root-user python in_orthanc.py FOLDER FILE...``: Orthanc 1.10 listens on every
address, so it is started where there is none but a loopback of its own.
"""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

PORT = 8042
URL = f"http://127.0.0.1:{PORT}"


def ask(path, data=None):
    with urllib.request.urlopen(f"{URL}{path}", data=data, timeout=20) as answer:
        return answer.read()


def preview_bytes(path):
    try:
        return len(ask(f"{path}/preview"))
    except urllib.error.HTTPError:  # a report and a presentation state are no pictures
        return 0


def wait_until_up(process):
    for _ in range(200):
        try:
            return ask("/system")
        except OSError:
            assert process.poll() is None, "Orthanc ended"
            time.sleep(0.1)
    raise TimeoutError("Orthanc does not answer")


def main():
    folder, files = Path(sys.argv[1]), sys.argv[2:]
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    configuration = {
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "HttpPort": PORT,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [],
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    process = subprocess.Popen(
        ["Orthanc", str(folder / "orthanc.json")], stdout=subprocess.DEVNULL, stderr=sys.stderr
    )
    try:
        wait_until_up(process)
        stored = [json.loads(ask("/instances", Path(file).read_bytes())) for file in files]
        found = []
        for instance in stored:
            path = f"/instances/{instance['ID']}"
            found.append(
                {
                    "status": instance["Status"],
                    "tags": json.loads(ask(f"{path}/simplified-tags")),
                    "study": instance["ParentStudy"],
                    "series": instance["ParentSeries"],
                    "preview_bytes": preview_bytes(path),
                }
            )
        print(json.dumps(found))
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
