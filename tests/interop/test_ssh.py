"""A long interactive session through `tunstack nc`, as ssh's ProxyCommand."""

from __future__ import annotations

import shlex
import subprocess
import time
from pathlib import Path

from interop.daemons import TUNSTACK, need
from interop.namespaces import Namespace

SSHD = "/usr/sbin/sshd"


def test_ssh_through_tunstack_nc(namespace: Namespace, offload_flags: list[str], tmp_path: Path) -> None:
    """M-33, M-50: sshd is on the kernel's address; ssh reaches it through our stack: commands, 32 MiB each way, an idle pause."""
    need("ssh", "ssh-keygen", SSHD)
    tmp_path.chmod(0o700)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)], check=True)
    (tmp_path / "authorized").write_bytes((tmp_path / "user.pub").read_bytes())
    (tmp_path / "config").write_text(
        f"HostKey {tmp_path}/host\nAuthorizedKeysFile {tmp_path}/authorized\nStrictModes no\nUsePAM no\nPidFile none\n"
        "PermitRootLogin yes\nListenAddress 0.0.0.0:2222\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)  # its privilege separation directory
    sshd = namespace.popen([SSHD, "-D", "-e", "-f", str(tmp_path / "config")], stderr=subprocess.DEVNULL)
    time.sleep(0.5)
    assert sshd.poll() is None
    proxy = shlex.join([*TUNSTACK, "nc", *offload_flags]) + " %h %p"
    ssh = ["ssh", "-F", "none", "-i", str(tmp_path / "user"), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    ssh += ["-o", "LogLevel=ERROR", "-o", f"ProxyCommand={proxy}", "-p", "2222", "root@10.78.0.1"]
    script = "echo first; sleep 3; head -c 33554432 /dev/zero | wc -c; sleep 2; echo last"
    output = namespace.run([*ssh, script], stdin=subprocess.DEVNULL, timeout=60).stdout
    assert output.split() == ["first", "33554432", "last"], output
    (tmp_path / "data").write_bytes(bytes(32 << 20))
    with (tmp_path / "data").open("rb") as source:
        assert namespace.run([*ssh, "cat | wc -c"], stdin=source, timeout=60).stdout.strip() == str(32 << 20)
    output = namespace.run([*ssh, "head -c 33554432 /dev/zero"], stdin=subprocess.DEVNULL, timeout=60).stdout
    assert len(output) == 32 << 20
