#!/usr/bin/env python3
"""Time to the first answer of the example, with an image and without, five times each: milliseconds.

measure.py MIGRATE CLASSES-DIRECTORY [PORT]

Before each start the files that it reads are put out of the page cache, as after a boot: the image, the
Java runtime and migrate itself.
"""

import glob
import os
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
JAVA = os.path.dirname(os.path.dirname(os.path.realpath("/usr/bin/java")))
TIMES = 5


def main(migrate, classes, port="8080"):
    with tempfile.TemporaryDirectory(dir="/var/tmp") as top:
        os.mkdir(f"{top}/services")
        command = ["/usr/bin/java", "-XX:-UsePerfData", "-cp", os.path.abspath(classes), "SlowStart", port]
        with open(f"{top}/services/measured.conf", "w") as settings:
            print(f"command = {command}", file=settings)
        here = ["--config", top, "--state", f"{top}/state"]
        service = lambda step: [migrate, "service", step, "measured", *here]
        image = f"{top}/state/services/measured/image/*"
        runtime = [migrate, *glob.glob(f"{JAVA}/lib/**", recursive=True)]
        took = {"normal": [], "image": []}
        for _ in range(TIMES):
            for start in took:
                if start == "normal":
                    subprocess.run(service("discard"), check=True, stdout=subprocess.DEVNULL)
                forget(runtime + glob.glob(image))
                url = f"http://127.0.0.1:{port}/uses?java/util/HashMap"
                ask = [sys.executable, f"{HERE}/first-answer.py", url, f"{top}/log", *service("run")]
                said = subprocess.run(ask, check=True, stdout=subprocess.PIPE, text=True).stdout
                took[start].append(int(said.split()[0]))
                subprocess.run(service("stop"), check=True, stdout=subprocess.DEVNULL)
        for start, all_ms in took.items():
            print(f"{start}: median {statistics.median(all_ms)} ms of {sorted(all_ms)}")
        print(open(f"{top}/log").read(), end="")


def forget(paths):
    """What somebody else has mapped stays: posix_fadvise(2)."""
    for path in filter(os.path.isfile, paths):
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


main(*sys.argv[1:])
