"""Debian's Slurm on loopback: one machine and a private slurm.conf."""

import os
import secrets
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo")
START_SECONDS = 30

CONF = """\
ClusterName=mamfed
SlurmctldHost={host}(127.0.0.1)
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_interval=1,defer_batch=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=2000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=60 State=UP
PartitionName=closed Nodes={host} MaxTime=60 State=DOWN
"""


def missing_programs():
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    return [name for name in PROGRAMS if shutil.which(name, path=path) is None]


@contextmanager
def slurm_cluster(folder: Path):
    """Yield the path of slurm.conf while the cluster runs, as this process's children."""
    for name in ("state", "spool"):
        (folder / name).mkdir(mode=0o700)
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    host = socket.gethostname().partition(".")[0]
    conf = folder / "slurm.conf"
    user = os.environ.get("USER") or "root"
    conf.write_text(CONF.format(host=host, ports=_free_ports(2), folder=folder, user=user))
    environment = {**os.environ, "SLURM_CONF": str(conf)}
    environment["PATH"] += f"{os.pathsep}/usr/sbin{os.pathsep}/sbin"
    files = [f"--{kind}={folder}/munge.{kind[:6].rstrip('-')}" for kind in ("log-file", "pid-file")]
    munge = ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket"]
    munge += [f"--key-file={key}", f"--seed-file={folder}/munge.seed", *files]
    commands = [munge, ["slurmctld", "-D", "-f", conf], ["slurmd", "-D", "-f", conf]]
    processes = []
    try:
        with open(folder / "daemons.log", "ab") as log:
            for command in commands:
                process = subprocess.Popen(
                    command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
                processes.append(process)
                _wait_for(folder / "munge.socket")
        _wait_until_idle(environment, processes, folder)
        yield conf
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(path):
    deadline = time.monotonic() + START_SECONDS
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)


def _wait_until_idle(environment, processes, folder):
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        asked = subprocess.run(
            ["sinfo", "-h", "-p", "main", "-o", "%T"],
            env=environment,
            capture_output=True,
            text=True,
        )
        if asked.stdout.strip() == "idle":
            return
        if any(process.poll() is not None for process in processes):
            break
        time.sleep(0.1)
    raise RuntimeError(f"Slurm does not start here: {(folder / 'daemons.log').read_text()[-500:]}")


def _free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
