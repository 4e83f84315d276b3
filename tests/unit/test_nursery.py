"""What a nursery bears is the process that would have been executed, but for its imports."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import nursery

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
SHOW = """
import json, os, resource, subprocess, sys, time
word = sys.argv[1]
if word == "show":
    print(json.dumps([
        sys.argv[1:], sys.orig_argv, sys.path[0], os.getcwd(), os.getppid(), os.environ["WORD"],
        os.getsid(0) == os.getpid(), resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        sorted(os.listdir("/proc/self/fd"))[:3], sys.stdin.read(),
        open("/proc/self/cmdline").read().rstrip("\\0").split("\\0"),
        sys.stdout.encoding, sys.stdout.line_buffering, sys.stderr.line_buffering, __name__,
        os.umask(0),
    ]))
elif word == "nested":
    subprocess.run([sys.executable, sys.argv[0], "show"], check=True)
elif word == "exit":
    sys.exit(3)
elif word == "words":
    sys.exit("in words")
elif word == "fail":
    raise ValueError("a fault")
elif word == "wait":
    print("ready", flush=True)
    time.sleep(100)
"""


@pytest.fixture(scope="module")
def script():
    """Scripts of these tests are borne, so it lies among them."""
    path = HERE / "__pycache__" / f"shown_{os.getpid()}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(SHOW)
    yield path
    path.unlink()


@pytest.fixture(params=["born", "executed"])
def how(request, monkeypatch):
    if request.param == "executed":
        monkeypatch.setenv(nursery.SWITCH, "1")
    return request.param


def ask(script, *words, **options):
    command = [sys.executable, script, *words]
    return subprocess.run(command, capture_output=True, text=True, **options)


def shown(script, word, folder, monkeypatch, **options):
    monkeypatch.setenv("WORD", "of this process")
    done = ask(script, word, cwd=folder, input="asked", **options)
    assert not done.returncode, done.stderr
    return done.stdout


@pytest.mark.parametrize("options", [{}, {"start_new_session": True}])
@pytest.mark.parametrize("word", ["show", "nested"])
def test_it_finds_what_an_executed_one_finds(script, word, options, tmp_path, monkeypatch):
    born = shown(script, word, tmp_path, monkeypatch, **options)
    monkeypatch.setenv(nursery.SWITCH, "1")
    executed = shown(script, word, tmp_path, monkeypatch, **options)
    number = re.compile(r"(?<=, )\d+(?=, \"of this process)")  # of its parent
    assert number.sub("", born) == number.sub("", executed)
    if word == "show":
        assert f'{os.getpid()}, "of this' in born


@pytest.mark.parametrize(
    ("word", "code", "said"), [("exit", 3, ""), ("words", 1, "in words"), ("fail", 1, "a fault")]
)
def test_it_ends_as_an_executed_one(script, word, code, said, how):
    done = ask(script, word)
    assert done.returncode == code
    assert said in done.stderr


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_signals_reach_it(script, number, how):
    command = [sys.executable, script, "wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        process.stdout.readline()
        process.send_signal(number)
        assert process.wait(30) == -number


def test_a_folder_that_is_missing_is_the_starters_error(script, tmp_path, how):
    with pytest.raises(FileNotFoundError):
        ask(script, "show", cwd=tmp_path / "missing")


def test_its_imports_are_shared_and_nothing_else_is_borne(script, monkeypatch):
    started = []
    execute = nursery._execute_child

    def note(popen, *words):
        started.append(words)
        execute(popen, *words)

    ask(script, "exit")  # starts the nursery, if no test has
    monkeypatch.setattr(nursery, "_execute_child", note)
    ask(script, "exit")
    assert not started
    for words, changes in (
        (["-c", "pass"], {}),
        ([script, "exit"], {"PYTHONPATH": "/elsewhere"}),
        ([script, "exit"], {"LC_ALL": "C"}),
        ([script, "exit"], {"PYTHONWARNINGS": "error"}),
    ):
        environment = {**os.environ, **changes}
        subprocess.run([sys.executable, *words], env=environment, stderr=subprocess.DEVNULL)
        assert len(started) == 1
        started.clear()
    with nursery.executed():
        ask(script, "exit")
    assert len(started) == 1


@pytest.mark.parametrize("safe", [(), ("-P",)])
def test_code_that_asks_for_it_is_borne(tmp_path, safe):
    code = "import json, sys; print(json.dumps([sys.argv, sys.path[0], __name__, 'torch' in {}]))"
    found = []
    for head in (nursery.BORN_CODE, ""):
        command = [sys.executable, *safe, "-c", head + code.format("sys.modules"), "word"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout))
    assert [one.pop() for one in found] == [True, False], "whether torch was there unasked"
    assert found[0] == found[1]


def test_the_decoding_process_is_borne_without_torch():
    words = [sys.executable, "-P", "-m", nursery.DECODER]
    assert nursery.program_of(words) == nursery.DECODER
    assert nursery.MODULES[nursery.LIGHT] == (nursery.DECODER,)


def test_the_end_of_a_birth_does_not_orphan_another_nurserys_child(script, monkeypatch):
    def slowly(*given, send=nursery.send):
        if threading.current_thread() is slow:
            time.sleep(1)  # after this process began to take in orphans
        send(*given)

    def start(*words):
        subprocess.run([sys.executable, "-P", *words], stdin=subprocess.DEVNULL, timeout=60)

    decoder = ("-m", nursery.DECODER, "0", "1")
    start(*decoder)  # both nurseries live
    start(script, "exit")
    slow = threading.Thread(target=start, args=(script, "exit"), daemon=True)
    monkeypatch.setattr(nursery, "send", slowly)
    slow.start()
    time.sleep(0.3)
    start(*decoder)
    slow.join(30)
    assert not slow.is_alive()
