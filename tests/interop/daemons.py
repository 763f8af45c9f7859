"""`tunstack serve` in a namespace, for the tests that use it as people do: with curl, nc, wrk and the like."""

from __future__ import annotations

import hashlib
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from interop.namespaces import Namespace

TUNSTACK = [sys.executable, "-m", "tunstack"]
ADDRESS = "10.77.0.2"
READY_TIMEOUT = 20.0


def need(*programs: str) -> None:
    """Skip the test where a program is missing; `make test` installs them all where it can."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")


def sha256(path: Path) -> str:
    """Return the digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def random_file(path: Path, size: int, seed: int = 1) -> str:
    """Write `size` random octets; return their digest."""
    source = random.Random(seed)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        while size:
            chunk = source.randbytes(min(size, 1 << 20))
            file.write(chunk)
            digest.update(chunk)
            size -= len(chunk)
    path.chmod(0o644)
    return digest.hexdigest()


class Daemon:
    """A running `tunstack serve` with a directory to serve, writable by the user that it becomes."""

    def __init__(self, namespace: Namespace, *flags: str) -> None:
        self.namespace = namespace
        self.root = Path(tempfile.mkdtemp(prefix="tunstack-root-"))
        self.root.chmod(0o777)
        self.private = Path(tempfile.mkdtemp(prefix="tunstack-run-"))  # /run is the same in every namespace
        self.control = self.private / "control.sock"
        command = [*TUNSTACK, "serve", "--http-root", str(self.root), "--http-upload", "--control", str(self.control), *flags]
        self.process = namespace.popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.ready_line = self._read_ready_line()

    def _read_ready_line(self) -> str:
        assert self.process.stdout is not None
        deadline = time.monotonic() + READY_TIMEOUT
        text = ""
        while "serving on" not in text:
            readable, _, _ = select.select([self.process.stdout], [], [], max(deadline - time.monotonic(), 0))
            chunk = os.read(self.process.stdout.fileno(), 4096) if readable else b""
            if not chunk:
                pytest.fail(f"tunstack serve did not become ready: {text!r}")
            text += chunk.decode()
        return text

    def curl(self, arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run curl quietly, failing on an HTTP error."""
        return self.namespace.run(f"curl -sS --fail {arguments}", **options)

    def status(self) -> dict[str, Any]:
        """Return `/status`."""
        import json

        answer: dict[str, Any] = json.loads(self.curl(f"http://{ADDRESS}/status").stdout)
        return answer

    def memory(self) -> int:
        """Return its resident memory, octets."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    def stop(self) -> str:
        """End it as an administrator would; return what it printed since it was ready. It must exit 0 and take its interface along."""
        self.process.send_signal(signal.SIGTERM)
        output, _ = self.process.communicate(timeout=20)
        assert self.process.returncode == 0, output
        assert self.namespace.links() == []
        return bytes(output).decode()

    def close(self) -> None:
        """Remove what is left."""
        self.process.kill()
        for directory in (self.root, self.private):
            shutil.rmtree(directory, ignore_errors=True)
