"""The program with which the kernel steers flows to the queues of a TUN interface: wire/steering.py's rule, in eBPF.

bpf(2), Linux's Documentation/bpf/standardization/instruction-set.rst. A TCP segment that is no fragment goes where its flow's hash says;
all else goes by its two addresses alone, so that a datagram's fragments come to one queue.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from tunstack.wire.steering import Steering

BPF_PROG_LOAD = 5
BPF_PROG_TYPE_SOCKET_FILTER = 1
SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "loongarch64": 280, "s390x": 351, "ppc64le": 361}  # by machine
LICENSE = b"MIT"

# What is looked at of the packet, which begins with its IPv4 header.
_VERSION, _FRAGMENT, _PROTOCOL, _SRC, _DST = 0, 6, 9, 12, 16
_IS_FRAGMENT = 0x3FFF  # MF, or an offset
_TCP = 6

_INSTRUCTION = struct.Struct("=BBhi")  # opcode, source and destination register, offset of a jump, constant
_ATTRIBUTES = struct.Struct("=IIQQIIQII")  # of BPF_PROG_LOAD, up to prog_flags

# Opcodes: on 64 bits, with a constant (K) or a register (X); loads from the packet go to register 0, and need the packet in register 6.
_ADD_X, _MUL_X, _MOV_X, _MUL_K, _AND_K, _LSH_K, _RSH_K, _MOV_K = 0x0F, 0x2F, 0xBF, 0x27, 0x57, 0x67, 0x77, 0xB7
_LOAD_64, _LOAD_WORD, _LOAD_HALF, _LOAD_BYTE, _LOAD_WORD_AT = 0x18, 0x20, 0x28, 0x30, 0x40
_JUMP_NOT_EQUAL, _JUMP_IF_SET, _EXIT = 0x55, 0x45, 0x95


def load(steering: Steering) -> int:
    """Give the program to the kernel; return its descriptor. OSError, EPERM without CAP_BPF where the administrator asks for that."""
    number = SYSCALL.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    code = assemble(steering)
    instructions, license = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(LICENSE)
    attributes = _ATTRIBUTES.pack(
        BPF_PROG_TYPE_SOCKET_FILTER,
        len(code) // _INSTRUCTION.size,
        ctypes.addressof(instructions),
        ctypes.addressof(license),
        *(0, 0, 0),  # no log
        *(0, 0),  # any version, no flags
    )
    argument = ctypes.create_string_buffer(attributes, len(attributes))
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor: int = libc.syscall(ctypes.c_long(number), ctypes.c_int(BPF_PROG_LOAD), argument, ctypes.c_uint(len(attributes)))
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return descriptor


def assemble(steering: Steering) -> bytes:
    """Return the program. What it returns is the queue; a load from beyond the end of the packet ends it with 0."""
    k0, k1, k2, k3 = steering.keys
    not_ipv4 = [_op(_MOV_K, 0, 0), _op(_EXIT)]
    ports = [_op(_LOAD_WORD_AT, source=7), *_load_64(1, k3), _op(_MUL_X, 1, source=0), _op(_ADD_X, 8, source=1)]
    only_of_tcp = [
        _op(_LOAD_BYTE, constant=_PROTOCOL),
        _op(_JUMP_NOT_EQUAL, 0, _TCP, jump=2 + len(ports)),
        _op(_LOAD_HALF, constant=_FRAGMENT),
        _op(_JUMP_IF_SET, 0, _IS_FRAGMENT, jump=len(ports)),
        *ports,
    ]
    program = [
        _op(_MOV_X, 6, source=1),
        _op(_LOAD_BYTE, constant=_VERSION),
        _op(_MOV_X, 7, source=0),
        _op(_AND_K, 7, 0xF),
        _op(_LSH_K, 7, 2),  # octets of the IPv4 header
        _op(_RSH_K, 0, 4),
        _op(_JUMP_NOT_EQUAL, 0, 4, jump=17 + len(only_of_tcp)),
        *_load_64(8, k0),
        _op(_LOAD_WORD, constant=_SRC),
        *_load_64(1, k1),
        _op(_MUL_X, 1, source=0),
        _op(_ADD_X, 8, source=1),
        _op(_LOAD_WORD, constant=_DST),
        *_load_64(1, k2),
        _op(_MUL_X, 1, source=0),
        _op(_ADD_X, 8, source=1),
        *only_of_tcp,
        _op(_RSH_K, 8, 32),
        _op(_MUL_K, 8, steering.count),
        _op(_RSH_K, 8, 32),
        _op(_MOV_X, 0, source=8),
        _op(_EXIT),
        *not_ipv4,
    ]
    return b"".join(program)


def _op(opcode: int, destination: int = 0, constant: int = 0, *, source: int = 0, jump: int = 0) -> bytes:
    return _INSTRUCTION.pack(opcode, source << 4 | destination, jump, constant)


def _load_64(destination: int, value: int) -> list[bytes]:
    """Load a constant of 64 bits: two instructions."""
    low, high = struct.unpack("=ii", struct.pack("=Q", value))
    return [_op(_LOAD_64, destination, low), _op(0, 0, high)]
