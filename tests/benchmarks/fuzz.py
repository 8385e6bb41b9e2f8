"""Spoil files until the time is over: `python -m tests.benchmarks.fuzz --minutes 10 --seed 1`.

Each file is read in a fork with bounded memory and time, so that a decoder that aborts the
process, or never ends, is found as well. What is at fault is printed as kind and seed.
"""

import argparse
import os
import resource
import sys
import time
import warnings
from collections import Counter

import numpy as np

from tests.dicom.test_fuzz import CPU_SECONDS, MEMORY_BYTES, SAMPLES, changed, outcome

BATCH = 200
"""Files per fork; only after a failure they are read one by one."""


def main() -> int:
    """Fuzz, print the counts; 1 if anything but a scan or a reason came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    for data in SAMPLES.values():
        outcome(data)
    end, seed, counts = time.monotonic() + 60 * options.minutes, options.seed, Counter[str]()
    while time.monotonic() < end:
        for name in SAMPLES:
            seeds = range(seed, seed + BATCH)
            counts["read or refused"] += BATCH
            if not survives(name, seeds):
                culprits = [one for one in seeds if not survives(name, range(one, one + 1))]
                counts["at fault"] += len(culprits)
                print(f"{name}: seeds {culprits}", flush=True)
        seed += BATCH
    print(dict(counts))
    return int(counts["at fault"] > 0)


def survives(name: str, seeds: range) -> bool:
    """Whether a process that reads these files lives and ends in time."""
    child = os.fork()
    if child == 0:
        os._exit(_read(name, seeds))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _read(name: str, seeds: range) -> int:
    used = int(resource.getrusage(resource.RUSAGE_SELF).ru_utime)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (used + CPU_SECONDS, used + CPU_SECONDS))
    try:
        for seed in seeds:
            outcome(changed(SAMPLES[name], np.random.default_rng(seed)))
    except BaseException as error:  # noqa: BLE001 - some decoders panic past `Exception`
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
