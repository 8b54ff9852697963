"""A program that is copied while it runs: each copy proves itself in a file of its own.

    copies.py DIRECTORY MIB

The file is named after the PID namespace that the copy is in. It gets one line per check, `ok N` or
`BAD reason`: memory that is changed all the time against a record of what it should be.
"""

import hashlib
import os
import random
import sys
import threading
import time

DIRECTORY, MIB = sys.argv[1], int(sys.argv[2])
PAGE = 4096
PAGES = MIB * 256


def content(page, version):
    return hashlib.sha256(b"%d %d" % (page, version)).digest() * (PAGE // 32)


def say(line):
    namespace = os.readlink("/proc/self/ns/pid").strip("pid:[]")
    with open(os.path.join(DIRECTORY, namespace), "a") as file:
        file.write(line + "\n")


def check(memory, versions, page):
    if memory[page * PAGE:(page + 1) * PAGE] != content(page, versions[page]):
        say(f"BAD page {page} is not of version {versions[page]}")
        os._exit(1)


def idle(event):
    event.wait()


memory = bytearray(b"".join(content(page, 0) for page in range(PAGES)))
versions = [0] * PAGES
threading.Thread(target=idle, args=(threading.Event(),), daemon=True).start()
checks = 0
while True:
    for page in random.sample(range(PAGES), min(PAGES, 64)):
        check(memory, versions, page)
        versions[page] += 1
        memory[page * PAGE:(page + 1) * PAGE] = content(page, versions[page])
    checks += 1
    if checks % 16 == 0:
        for page in range(PAGES):
            check(memory, versions, page)
    say(f"ok {checks}")
    time.sleep(0.01)
