"""Hosts: machines made of namespaces on one switch, to be cut off, slowed down and powered off for real.

Each host has a network, mounts, a name and processes of its own; all share this machine's processors, clock, files and page
cache. A host's namespaces live as long as its init, which waits on a pipe that we hold: they end with us, however we end.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

PROGRAMS = ("unshare", "nsenter", "ip", "tc", "nft")
KINDS = ("net", "mount", "uts", "pid")
#: Where hosts live: a /24 that only exists between them and us.
NETWORK = "10.77.0"
#: After so long the name of the cable belongs to another set of hosts.
NAME_PATIENCE_S = 10.0
#: Our own end of a cable to the switch. One name and one network for a machine: a second set of hosts is refused.
DESK, DESK_ADDRESS = "crossdim-desk", f"{NETWORK}.1"
BRIDGE = "switch"
#: What the switch drops: all that comes in or goes out at a port of this set. Neither end is told, not even by a refusal.
CUTTER = """
add table bridge cutter
add set bridge cutter ports { type ifname; }
add chain bridge cutter forward { type filter hook forward priority 0; }
add rule bridge cutter forward iifname @ports drop
add rule bridge cutter forward oifname @ports drop
"""


def address(host: int) -> str:
    """IPv4 address of a host."""
    return f"{NETWORK}.{10 + host}"


def name(host: int) -> str:
    """What a host calls itself, and the others call it."""
    return f"host{host}"


def obstacle() -> str | None:
    """Why there can be no hosts here, as a sentence; None if there can."""
    if os.geteuid() != 0:
        return "hosts are made of namespaces, which need root"
    if missing := [program for program in PROGRAMS if not shutil.which(program)]:
        return f"hosts need {', '.join(missing)}: apt-get install iproute2 nftables util-linux"
    probe = subprocess.run(["unshare", *(f"--{kind}" for kind in KINDS), "--fork", "true"], capture_output=True, check=False)
    return f"root may not make namespaces here: {probe.stderr.decode().strip()}" if probe.returncode else None


def _must(command: str, text: str = "") -> None:
    """Run a short command; its complaint is the error."""
    done = subprocess.run(shlex.split(command), input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr.strip()}")


class _Box:
    """Namespaces and the init that holds them."""

    def __init__(self, kinds: Sequence[str], setup: str) -> None:
        line = ["unshare", *(f"--{kind}" for kind in kinds), "--fork", "--kill-child", "bash", "-euc"]
        self._kinds = kinds
        self._unshare = subprocess.Popen(
            [*line, f"{setup}\necho up\nread -r _ || true"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._unshare.stdout
        said = self._unshare.stdout.readline()
        if said != "up\n":
            self._close()
            raise RuntimeError(f"namespaces {', '.join(kinds)} were not made: {said.strip()}")
        self.init = int(Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children").read_text())

    def line(self, argv: Sequence[str]) -> list[str]:
        """``argv`` as a command line that runs inside."""
        return ["nsenter", "--target", str(self.init), *(f"--{kind}" for kind in self._kinds), "--", *argv]

    def do(self, command: str, text: str = "") -> None:
        """Run a short command inside."""
        _must(shlex.join(self.line(command.split())), text)

    def end(self) -> None:
        """End the init; with a pid namespace, everything inside is dead when this returns."""
        if self._unshare.poll() is None:
            os.kill(self.init, signal.SIGKILL)
        self._close()

    def _close(self) -> None:
        assert self._unshare.stdin
        assert self._unshare.stdout
        self._unshare.stdin.close()
        self._unshare.stdout.close()
        self._unshare.wait()


class Hosts:
    """Hosts 0 to ``count`` - 1 and a switch, for as long as the context; we reach them from :data:`DESK_ADDRESS`.

    Raises:
        RuntimeError: with the words of the program that refused.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._boxes: dict[int, _Box] = {}
        self._started: list[subprocess.Popen[bytes]] = []
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            self._scratch = tempfile.mkdtemp(prefix="hosts-")
            undo.callback(os.rmdir, self._scratch)  # each host has mounted its own over it
            undo.callback(self._reap)
            self._switch = _Box(("net",), "")
            undo.callback(self._switch.end)
            self._switch.do(f"ip link add {BRIDGE} type bridge")
            self._switch.do(f"ip link set {BRIDGE} up")
            self._switch.do("nft -f -", CUTTER)
            self._desk()
            undo.callback(_must, f"ip link del {DESK}")  # the kernel takes its time, and the next set needs the name
            for host in range(self._count):
                self._boxes[host] = _Box(KINDS, self._furniture(host))
                undo.callback(self._boxes[host].end)
                self._plug(host)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._undo.close()

    def run(self, host: int, argv: Sequence[str], **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command on a host, in the folder that we are in, and wait for its end."""
        line, variables = self._line(host, argv), self._environment(environment)
        return subprocess.run(line, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)

    def start(self, host: int, argv: Sequence[str], log: Path, **environment: str) -> subprocess.Popen[bytes]:
        """Start a command on a host; it writes to ``log``, and ends with the host if not before."""
        line, variables = self._line(host, argv), self._environment(environment)
        with log.open("ab") as out:
            process = subprocess.Popen(line, env=variables, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
        self._started.append(process)
        return process

    def cut(self, host: int) -> None:
        """A silent partition: from now on the host hears nobody and nobody hears it."""
        self._switch.do(f"nft add element bridge cutter ports {{ port{host} }}")

    def heal(self, host: int) -> None:
        """Undo :meth:`cut`."""
        self._switch.do(f"nft delete element bridge cutter ports {{ port{host} }}")

    def limit(self, host: int, mbit: int) -> None:
        """Let the host send and receive ``mbit`` Mbit/s at most, each way; may be changed by another call."""
        shaped = f"root tbf rate {mbit}mbit burst 256kb latency 50ms"
        self._boxes[host].do(f"tc qdisc replace dev eth0 {shaped}")
        self._switch.do(f"tc qdisc replace dev port{host} {shaped}")

    def kill(self, host: int) -> None:
        """A power failure: first the cable, since dying processes would say goodbye to their peers, then all processes."""
        self.cut(host)
        self._boxes.pop(host).end()

    def _line(self, host: int, argv: Sequence[str]) -> list[str]:
        return self._boxes[host].line(["env", f"--chdir={Path.cwd()}", *argv])  # entering mounts leaves one at the root

    def _environment(self, more: dict[str, str]) -> dict[str, str]:
        """Ours without what would lead a host to our credentials or our Ray; temporary files are the host's own."""
        ours = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "RAY_"))}
        return ours | {"TMPDIR": self._scratch} | more

    def _furniture(self, host: int) -> str:
        names = "\\n".join(["127.0.0.1 localhost", *(f"{address(n)} {name(n)}" for n in range(self._count))])
        return f"""
mount -t proc proc /proc
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs {self._scratch}
printf '{names}\\n' > {self._scratch}/hosts
mount --bind {self._scratch}/hosts /etc/hosts
hostname {name(host)}
ip link set lo up
"""

    def _desk(self) -> None:
        """A cable from the switch to us: it goes when the switch does."""
        self._add_cable(f"ip link add desk type veth peer name {DESK} netns {os.getpid()}")
        self._switch.do(f"ip link set desk master {BRIDGE} up")
        _must(f"ip addr add {DESK_ADDRESS}/24 dev {DESK}")
        _must(f"ip link set {DESK} up")

    def _add_cable(self, command: str) -> None:
        """Add the cable once its name is free: seen once, the kernel kept that of the set before although its device had gone."""
        deadline = time.monotonic() + NAME_PATIENCE_S
        while True:
            try:
                self._switch.do(command)
                return
            except RuntimeError as error:
                if "File exists" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(0.1)

    def _plug(self, host: int) -> None:
        box, port = self._boxes[host], f"port{host}"
        self._switch.do(f"ip link add {port} type veth peer name eth0 netns {box.init}")
        self._switch.do(f"ip link set {port} master {BRIDGE} up")
        box.do(f"ip addr add {address(host)}/24 dev eth0")
        box.do("ip link set eth0 up")

    def _reap(self) -> None:
        for process in self._started:
            process.wait()
