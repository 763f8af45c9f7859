"""serve_tunstack.py while it is sampled: serve_sampled.py FILE, then the arguments of serve_tunstack.py"""

from __future__ import annotations

import sys

import sampling
import serve_tunstack
from meter import MeterError


def main() -> None:
    path = sys.argv.pop(1)
    sampler = sampling.Sampler()
    sampler.start()
    serve_tunstack.main()
    sampler.stop()
    sampling.write(sampler, path)
    print("written", flush=True)


if __name__ == "__main__":
    try:
        main()
    except MeterError as error:
        sys.exit(str(error))
