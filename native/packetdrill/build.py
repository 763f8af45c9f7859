"""Builds the shared library that packetdrill loads with --so_filename: a Python with the engine in it (cffi, embedding).

    python native/packetdrill/build.py                      build build/tunstack_packetdrill.so
    python native/packetdrill/build.py --python /path/to/python3
    python native/packetdrill/build.py --output lib.so

It needs a C compiler, cffi in the Python that runs this, and a Python to embed: one with a shared libpython, its headers, and cffi's
runtime for its version. It tries the Python that runs this, then those on the PATH and in the usual places, and says what it finds.
The library remembers where this checkout is, and takes tunstack from there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import cffi

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = ROOT / "build" / "tunstack_packetdrill.so"
MODULE = "_tunstack_packetdrill"
FLAGS = ("-std=gnu11", "-O2", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra")
QUIET = ("-Wno-unused-parameter", "-Wno-unused-function", "-Wno-missing-field-initializers")  # what cffi generates
RUNTIME_FOLDER = str(Path(cffi.__file__).resolve().parent.parent)

# What plugin.c asks of glue.py, and what glue.py sees of plugin.c.
CDEF = """
#define OWNED_MAX ...
static unsigned char ts_owned[...];
static int ts_returning;
typedef unsigned int socklen_t;
typedef unsigned long nfds_t;
struct sockaddr { ...; };
struct pollfd { int fd; short events; short revents; ...; };
extern "Python" {
    int ts_init(const char *flags);
    long long ts_now(void);
    int ts_usleep(unsigned int microseconds);
    int ts_netdev_send(const void *packet, size_t size);
    int ts_netdev_receive(void *buffer, size_t *size, long long *time);
    int ts_socket(int domain, int type, int protocol);
    int ts_bind(int fd, const struct sockaddr *address, socklen_t length);
    int ts_listen(int fd, int backlog);
    int ts_accept(int fd, struct sockaddr *address, socklen_t *length);
    int ts_connect(int fd, const struct sockaddr *address, socklen_t length);
    ssize_t ts_receive(int fd, void *buffer, size_t size, int flags);
    ssize_t ts_send(int fd, const void *data, size_t size, int flags, const struct sockaddr *address, socklen_t length);
    int ts_fcntl(int fd, int command, int argument);
    int ts_ioctl(int fd, unsigned long request, int *argument);
    int ts_close(int fd);
    int ts_shutdown(int fd, int how);
    int ts_getsockopt(int fd, int level, int name, void *value, socklen_t *length);
    int ts_setsockopt(int fd, int level, int name, const void *value, socklen_t length);
    int ts_poll(struct pollfd *asked, nfds_t count, int timeout);
    int ts_epoll_create(void);
    int ts_epoll_ctl(int epfd, int operation, int fd, uint32_t events, uint64_t data);
    int ts_epoll_wait(int epfd, uint32_t *bits, uint64_t *data, int most, int timeout);
    int ts_pipe(int *fds);
    int ts_splice(int source, int target, size_t size, unsigned int flags);
}
"""

# Run by a Python that is looked at: what it would take to embed it.
PROBE = f"""
import json, os, sys, sysconfig
get = sysconfig.get_config_var
found = dict(version=sys.version.split()[0], shared=bool(get("Py_ENABLE_SHARED")), library=get("INSTSONAME") or "",
             folder=get("LIBDIR") or "", include=sysconfig.get_path("include"), prefix=sys.base_prefix)
found["headers"] = os.path.exists(os.path.join(found["include"], "Python.h"))
try:
    import _cffi_backend
    found["runtime"] = os.path.dirname(_cffi_backend.__file__)
except ImportError:
    sys.path.append({RUNTIME_FOLDER!r})
    try:
        import _cffi_backend
        found["runtime"] = {RUNTIME_FOLDER!r}
    except ImportError:
        found["runtime"] = ""
print(json.dumps(found))
"""


class BuildError(RuntimeError):
    """It cannot be built; one line that says why."""


@dataclass(frozen=True)
class Python:
    """A Python that can be embedded."""

    path: str
    version: str
    libpython: Path
    include: str
    runtime: str  # folder of cffi's runtime
    prefix: str


def look_at(path: str) -> Python:
    """Find out whether a Python can be embedded; BuildError says why not."""
    done = subprocess.run([path, "-c", PROBE], capture_output=True, text=True)
    if done.returncode:
        raise BuildError("does not run")
    found = json.loads(done.stdout)
    if tuple(map(int, found["version"].split(".")[:2])) < (3, 11):
        raise BuildError(f"is {found['version']}, and tunstack needs 3.11")
    if not found["shared"]:
        raise BuildError(f"{found['version']} was built without a shared libpython")
    library = Path(found["folder"], found["library"])
    if not library.exists():
        raise BuildError(f"{found['version']} has no {library} (Debian: apt install libpython3-dev)")
    if not found["headers"]:
        raise BuildError(f"{found['version']} has no headers in {found['include']} (Debian: apt install libpython3-dev)")
    if not found["runtime"]:
        raise BuildError(
            f"{found['version']} has no cffi, and that of this Python does not fit it (Debian: apt install python3-cffi-backend)"
        )
    return Python(path, found["version"], library, found["include"], found["runtime"], found["prefix"])


def candidates() -> list[str]:
    """Return the Pythons to look at, each once."""
    names = [sys.executable, shutil.which("python3"), "/usr/bin/python3", "/usr/local/bin/python3"]
    names += [shutil.which(f"python3.{minor}") for minor in range(20, 10, -1)]
    return list(dict.fromkeys(name for name in names if name and os.access(name, os.X_OK)))


def find_python(wanted: str | None) -> Python:
    """Return the first Python that can be embedded, and say what was found; BuildError if there is none."""
    for path in [wanted] if wanted else candidates():
        try:
            python = look_at(path)
        except (OSError, BuildError) as error:
            print(f"packetdrill plug-in: not {path}: {error}")
            continue
        print(f"packetdrill plug-in: embedding {path}, Python {python.version}, {python.libpython}")
        return python
    raise BuildError("no Python that can be embedded was found (Debian's can: apt install python3 libpython3-dev)")


def build(target: Path, python: Python, compiler: str, flags: tuple[str, ...] = FLAGS) -> None:
    """Compile the library."""
    paths = [str(ROOT), python.runtime]
    start = f"import sys\nsys.path[:0] = [path for path in {paths!r} if path not in sys.path]\n"
    ffi = cffi.FFI()
    ffi.embedding_api("")
    ffi.cdef(CDEF)
    glue = (HERE / "glue.py").read_text()
    ffi.embedding_init_code(f"{start}exec(compile({glue!r}, 'glue.py', 'exec'))\n")
    ffi.set_source(
        MODULE,
        f'''
#include <stdio.h>
#include "interface.h"
#define LIBPYTHON "{python.libpython}"
#define RUNTIME "{python.runtime}"
{"".join(prototypes())}
#include "plugin.c"
''',
    )
    with tempfile.TemporaryDirectory() as work:
        source = Path(work, f"{MODULE}.c")
        with redirect_stdout(StringIO()):  # it says what it generates
            ffi.emit_c_code(str(source))
        made = Path(work, target.name)
        command = [compiler, *flags, *QUIET, f"-I{HERE}", f"-I{python.include}", str(source), "-shared", "-o", str(made)]
        command += [str(python.libpython), f"-Wl,-rpath,{python.libpython.parent}", "-ldl", "-lpthread"]
        if subprocess.run(command).returncode:
            raise BuildError(f"{compiler} failed, and said above why")
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_suffix(".new")
        shutil.copyfile(made, fresh)
        fresh.chmod(0o755)
        fresh.replace(target)


def prototypes() -> list[str]:
    """Declare for plugin.c the functions that cffi defines further down."""
    body = CDEF[CDEF.index("{", CDEF.index('extern "Python"')) + 1 : CDEF.rindex("}")]
    return [f"static {line.strip()}\n" for line in body.splitlines() if line.strip()]


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description="Build the library that lets packetdrill drive tunstack.")
    parser.add_argument("--python", metavar="PATH", help="the Python to embed (default: the first one found that can be)")
    parser.add_argument("--output", metavar="FILE", type=Path, default=TARGET, help="where to put the library")
    arguments = parser.parse_args()
    compiler = next((name for name in (os.environ.get("CC"), "cc", "gcc", "clang") if name and shutil.which(name)), None)
    try:
        if compiler is None:
            raise BuildError("no C compiler (cc, gcc or clang) was found")
        build(arguments.output, find_python(arguments.python), compiler)
    except (OSError, BuildError) as error:
        print(f"packetdrill plug-in: {error}", file=sys.stderr)
        return 1
    print(f"packetdrill plug-in: built {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
