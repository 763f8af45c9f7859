"""Fuzzes the C code under ASan and UBSan; README.md beside this file says how it is used.

    python native/fuzz/run.py --seconds 1800        fuzz, starting from the corpus
    python native/fuzz/run.py --seconds 60 --seed   the same, starting from frames that are made here as well
    python native/fuzz/run.py --minimise            put what was found into the corpus, as few and small inputs as cover the same
    python native/fuzz/run.py --coverage            say which lines the corpus reaches

Clang with libFuzzer is needed (Debian: clang and libclang-rt-14-dev; llvm-14 for --coverage). What is found is kept in
build/fuzz, a crash as crash-* there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

FUZZ = Path(__file__).resolve().parent
NATIVE = FUZZ.parent
WORK = NATIVE.parent / "build" / "fuzz"
CORPUS = FUZZ / "corpus"
SOURCES = sorted(NATIVE.glob("*.c"))
MAX_LENGTH = 8192

SANITIZE = ("-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all")
COVERAGE = ("-fsanitize=fuzzer,address", "-fprofile-instr-generate", "-fcoverage-mapping")


def compile_target(name: str, flags: tuple[str, ...]) -> Path:
    """Compile the target under the given instrumentation and return the program."""
    if not shutil.which("clang"):
        sys.exit("fuzz: clang was not found; on Debian and Ubuntu: apt-get install clang libclang-rt-14-dev")
    WORK.mkdir(parents=True, exist_ok=True)
    program = WORK / name
    base = ("clang", "-std=c11", "-D_GNU_SOURCE", "-g", "-O1", "-fno-omit-frame-pointer", "-Wall", "-Wextra", f"-I{NATIVE}")
    command = [*base, *flags, *map(str, SOURCES), str(FUZZ / "fuzz_frames.c"), "-o", str(program)]
    if subprocess.run(command).returncode:
        sys.exit("fuzz: the target does not compile")
    return program


def write_seeds(directory: Path) -> None:
    """Write inputs that reach every corner once: options, runs of several kinds, super-segments, other packets, damaged frames."""
    sys.path.insert(0, str(NATIVE.parent))
    from tunstack.wire import icmp, ipv4, twin
    from tunstack.wire.segment import ACK, CWR, FIN, SYN, URG, Segment
    from tunstack.wire.virtio import HEADER

    follow, checksums, length, flip_psh, flip_fin, second_last, stretch, advance = 1, 2, 4, 8, 16, 32, 64, 128
    flow, other = bytes((10, 0, 0, 1, 10, 0, 0, 2, 0, 80, 200, 0)), bytes((10, 0, 0, 3, 10, 0, 0, 2, 0, 81, 200, 1))
    data = memoryview(bytes(range(256)) * 4)

    def chunk(op: int, content: bytes) -> bytes:
        return bytes((op,)) + len(content).to_bytes(2, "little") + content

    def segment(flags: int, size: int = 0, key: bytes = flow, **fields: object) -> bytes:
        made = Segment(key, 1000, 2000 if flags & ACK else 0, flags, 500, (data[:size],), size)
        for name, value in fields.items():
            setattr(made, name, value)
        return twin.encode(made)[0]

    full = segment(ACK, 100, ts_val=1, ts_ecr=2)
    plain = [
        segment(SYN, mss=1460, sack_ok=True, ts_val=7, ts_ecr=0, wscale=7),
        segment(SYN | ACK, mss=536, sack_ok=True, wscale=14),
        segment(SYN, mss=1460, wscale=0, options=b"\x22\x02\x01\x01"),
        segment(ACK, sack=((1, 2), (5, 9), (20, 30)), ts_val=1, ts_ecr=2),
        segment(ACK, sack=((1, 2), (5, 9), (20, 30), (40, 50))),
        segment(ACK | URG | CWR | FIN, 10, urgent=3, tos=0xFF, options=bytes(range(0x80, 0xA8))),
        segment(ACK, options=b"\x05\x03\x08\x0a\x02\x04\x03\x01\x02\x09\x04\x02"),
        ipv4.build(b"\x0a\0\0\1", b"\x0a\0\0\2", ipv4.ICMP, icmp.echo_request(1, 1, bytes(20))),
        ipv4.build(b"\x0a\0\0\1", b"\x0a\0\0\2", ipv4.TCP, full[20:], more_fragments=True),
        ipv4.build(b"\x0a\0\0\1", b"\x0a\0\0\2", ipv4.TCP, full[20:], options=b"\x94\x04\0\0"),
        ipv4.build(b"\x0a\0\0\1", b"\x0a\0\0\2", ipv4.UDP, b"\0\x35\0\x36\0\x10\0\0abcdefgh"),
        b"\x60" + bytes(47),
        full + b"padding",
        full[:-1],
        full[:50] + b"\xff" + full[51:],
    ]
    inputs = [b"\x02" + chunk(0, frame) for frame in plain] + [b"\x03" + chunk(0, bytes(10) + frame) for frame in plain]
    go = follow | checksums | length
    run = [chunk(0, full), chunk(go, bytes(data[:100])), chunk(go, bytes(data[:100])), chunk(go, bytes(data[:40])), chunk(go, b"x")]
    inputs.append(b"\x02" + b"".join(run))
    inputs.append(b"\x00" + b"".join(run))
    inputs.append(b"\x02" + run[0] + run[1] + chunk(go | flip_psh, bytes(data[:100])) + run[1] + chunk(go | flip_fin, b"y"))
    interleaved = [chunk(0, full), chunk(0, segment(ACK, 100, other))] + [chunk(go | second_last, bytes(data[:100]))] * 6
    inputs.append(b"\x02" + b"".join(interleaved))
    step = chunk(go | advance, b"\0\0\0\x64")
    steps = step * 3 + chunk(go | advance, b"") + step * 3 + chunk(go, b"z") + step * 3
    firsts = (segment(ACK), segment(ACK, ts_val=1, ts_ecr=2), segment(ACK, sack=((1, 2),)), full)
    inputs += [b"\x06" + chunk(0, first) + steps for first in firsts]
    far = chunk(go | advance, b"\x7f\xff\xff\xff") + chunk(go | advance, b"\x80\0\0\0")
    inputs.append(b"\x07" + chunk(0, bytes(10) + segment(ACK)) + step * 2 + far + step * 2)
    large = chunk(go | stretch, bytes(data[:512]))
    inputs.append(b"\x02" + chunk(0, full) + large * 9)
    for flags, gso_type, size in ((1, 1, 1448), (1, 0x81, 512), (2, 1, 100), (0, 1, 100), (1, 4, 100), (0, 0, 0)):
        offload = HEADER.pack(flags, gso_type, 52, size, 20, 16)
        inputs.append(b"\x03" + chunk(0, offload + full) + large * 5 + chunk(go, bytes(data[:7])))
        inputs.append(b"\x03" + chunk(0, offload + plain[10]))
    directory.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(inputs):
        (directory / f"seed-{number:02}").write_bytes(content)


def fuzz(seconds: int, seed: bool) -> int:
    """Fuzz for that long, and return libFuzzer's status."""
    program = compile_target("fuzz_frames", SANITIZE)
    found = WORK / "found"
    found.mkdir(exist_ok=True)
    if seed:
        write_seeds(WORK / "seeds")
    inputs = [found, CORPUS, *([WORK / "seeds"] if seed else [])]
    options = [f"-max_total_time={seconds}", f"-max_len={MAX_LENGTH}", f"-artifact_prefix={WORK}/", "-print_final_stats=1", "-timeout=10"]
    os.nice(10)
    return subprocess.run([str(program), *options, "-use_value_profile=1", *map(str, inputs)]).returncode


def minimise() -> int:
    """Merge what was found with the corpus, and put the result in its place."""
    program = compile_target("fuzz_frames", SANITIZE)
    merged = WORK / "merged"
    shutil.rmtree(merged, ignore_errors=True)
    merged.mkdir()
    sources = [path for path in (CORPUS, WORK / "found", WORK / "seeds") if path.is_dir()]
    status = subprocess.run([str(program), "-set_cover_merge=1", f"-max_len={MAX_LENGTH}", str(merged), *map(str, sources)]).returncode
    if status == 0:
        shutil.rmtree(CORPUS, ignore_errors=True)
        shutil.copytree(merged, CORPUS)
        sizes = [path.stat().st_size for path in CORPUS.iterdir()]
        print(f"fuzz: the corpus has {len(sizes)} inputs, {sum(sizes)} octets")
    return status


def coverage() -> int:
    """Replay the corpus and print the lines covered, a file a row."""
    program = compile_target("fuzz_coverage", COVERAGE)
    raw, data = WORK / "coverage.raw", WORK / "coverage.data"
    inputs = [str(path) for path in sorted(CORPUS.iterdir())]
    quiet = subprocess.DEVNULL
    if subprocess.run([str(program), *inputs], env={**os.environ, "LLVM_PROFILE_FILE": str(raw)}, stderr=quiet).returncode:
        return 1
    subprocess.run(["llvm-profdata", "merge", "-sparse", str(raw), "-o", str(data)], check=True)
    return subprocess.run(["llvm-cov", "report", str(program), f"-instr-profile={data}", *map(str, SOURCES)]).returncode


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description="Fuzz the C code of tunstack.")
    parser.add_argument("--seconds", type=int, default=60, help="how long to fuzz (default 60)")
    parser.add_argument("--seed", action="store_true", help="start from frames that are made here too, not only from the corpus")
    parser.add_argument("--minimise", action="store_true", help="merge what was found into the corpus")
    parser.add_argument("--coverage", action="store_true", help="report the lines that the corpus reaches")
    arguments = parser.parse_args()
    if arguments.minimise:
        return minimise()
    if arguments.coverage:
        return coverage()
    return fuzz(arguments.seconds, arguments.seed)


if __name__ == "__main__":
    sys.exit(main())
