"""The C extension as cffi presents it: everything behind it is untyped, native.py gives it types."""

from typing import Any

ffi: Any
lib: Any
