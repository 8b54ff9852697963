#!/usr/bin/env python3
"""Starts a server and prints how long it takes until it answers, and what: MILLISECONDS ANSWER.

first-answer.py URL LOG COMMAND... The server goes on running; what it says goes into LOG.
"""

import subprocess
import sys
import time
import urllib.request


def main(url, log, *command):
    with open(log, "ab") as said:
        began = time.monotonic()
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
        )
    while server.poll() is None:
        try:
            answer = urllib.request.urlopen(url, timeout=60).read().decode().strip()
        except OSError:
            time.sleep(0.002)
            continue
        print(round((time.monotonic() - began) * 1000), answer)
        return 0
    print("it ended before it answered", file=sys.stderr)
    return 1


sys.exit(main(*sys.argv[1:]))
