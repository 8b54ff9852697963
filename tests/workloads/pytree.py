"""A Python tree: threads and children joined by pipes, each checking what passes through it.

Says the lines of prove.h: "ready", "ok N", "BAD reason", and "done" after SIGTERM.
"""
import hashlib
import os
import queue
import signal
import sys
import threading
import time

CHILDREN = 3
THREADS = 4
stopping = threading.Event()
faults = queue.Queue()


def say(line):
    os.write(1, (line + "\n").encode())


def chain(reader, writer):
    """A child: adds itself to every token and passes it on, from two threads in turns."""
    lock = threading.Lock()

    def pass_on():
        while True:
            with lock:
                token = os.read(reader, 16)
                if len(token) != 16:
                    os._exit(0)
                os.write(writer, hashlib.md5(token).digest())

    for _ in range(2):
        threading.Thread(target=pass_on, daemon=True).start()
    threading.Event().wait()


def make_children():
    first_reader, entry = os.pipe()
    reader = first_reader
    for _ in range(CHILDREN):
        next_reader, writer = os.pipe()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.close(entry)
            chain(reader, writer)
        os.close(reader)
        os.close(writer)
        reader = next_reader
    return entry, reader


def send_tokens(entry, exit_, done):
    """Keeps several tokens in the pipes, so that a move finds them under way."""
    expected = []
    for number in range(1 << 60):
        token = number.to_bytes(16, "little")
        os.write(entry, token)
        for _ in range(CHILDREN):
            token = hashlib.md5(token).digest()
        expected.append(token)
        if len(expected) > 20:
            got = os.read(exit_, 16)
            if got != expected.pop(0):
                faults.put(f"token {number} came back as {got.hex()}")
        done[0] = number


def hash_forever(number, done):
    table = {}
    for step in range(1 << 60):
        key = f"{number}:{step % 5000}"
        before = table.get(key, 0)
        if before not in (0, step - 5000):
            faults.put(f"{key} holds {before} in step {step}")
        table[key] = step
        done[number] = step
        if step % 500 == 0:
            time.sleep(0.001)


def main():
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    entry, exit_ = make_children()
    done = [0] * (THREADS + 1)
    threading.Thread(target=send_tokens, args=(entry, exit_, done), daemon=True).start()
    for number in range(1, THREADS + 1):
        threading.Thread(target=hash_forever, args=(number, done), daemon=True).start()
    say("ready")
    checks, idle, before = 0, 0, None
    while True:
        last = stopping.wait(0.05)
        idle = idle + 1 if before is not None and min(map(int.__sub__, done, before)) == 0 else 0
        before = list(done)
        if not faults.empty() or idle > 600:
            say("BAD " + (faults.get() if not faults.empty() else f"a thread stands still {done}"))
            os._exit(1)
        checks += 1
        say(f"ok {checks}")
        if last:
            say("done")
            os._exit(0)


if sys.argv[1:] == ["--spoil"]:
    faults.put("spoilt")
main()
