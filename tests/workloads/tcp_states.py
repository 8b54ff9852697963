"""Connections in every state that lasts, for a move in mid-way.

    tcp_states.py serve LISTEN PORT OWN FLAG    LISTEN: where; OWN: the address to call others from
    tcp_states.py call SERVER PORT OWN FLAG     OWN: the address at which the server calls back

Both bring each connection into its state, say `set NAME`, and wait for the file FLAG. Then they go on to
its end, compare every byte, and say `done NAME`; what is wrong is said as `BAD reason`.
"""

import os
import random
import socket
import sys
import threading
import time

SO_SNDBUFFORCE = 32
LITTLE, MUCH, TOO_MUCH = 50_000, 2 << 20, 24 << 20
PATTERN = random.Random(4711).randbytes(TOO_MUCH)


def say(line):
    os.write(1, (line + "\n").encode())


def await_flag():
    while not os.path.exists(FLAG):
        time.sleep(0.02)


def take(connection, size, and_end=False):
    """Exactly so many bytes of the pattern, and then the end if there should be one."""
    got = bytearray()
    while len(got) < size:
        piece = connection.recv(min(1 << 18, size - len(got)))
        if not piece:
            break
        got += piece
    if got != PATTERN[:size]:
        raise ValueError(f"{len(got)} bytes came of {size}, or others")
    if and_end and connection.recv(1):
        raise ValueError("more came than was sent")


def finish(connection):
    connection.shutdown(socket.SHUT_WR)


def send_more_than_fits(connection):
    """Returns the thread that is stuck in its call."""
    sender = threading.Thread(target=connection.sendall, args=(PATTERN,))
    sender.start()
    time.sleep(0.5)
    return sender


# Each: what the server and the client do before the move, and after it.

def established(connection, is_server):
    yield
    connection.sendall(PATTERN[:LITTLE])
    take(connection, LITTLE)


def full(connection, is_server):
    sender = send_more_than_fits(connection)
    yield
    take(connection, TOO_MUCH)
    sender.join()
    finish(connection)
    take(connection, 0, and_end=True)


def client_has_finished(connection, is_server):
    if is_server:
        yield
        take(connection, LITTLE, and_end=True)
        connection.sendall(PATTERN[:LITTLE])
        finish(connection)
    else:
        connection.sendall(PATTERN[:LITTLE])
        finish(connection)
        yield
        take(connection, LITTLE, and_end=True)


def server_has_finished(connection, is_server):
    return client_has_finished(connection, not is_server)


def finish_behind_much(connection):
    connection.sendall(PATTERN[:MUCH])
    finish(connection)


def end_under_way(connection, is_server):
    if is_server:
        finish_behind_much(connection)
        yield
        take(connection, LITTLE, and_end=True)
    else:
        yield
        take(connection, MUCH, and_end=True)
        connection.sendall(PATTERN[:LITTLE])
        finish(connection)


def last_end_under_way(connection, is_server):
    if is_server:
        take(connection, 0, and_end=True)
        finish_behind_much(connection)
        yield
    else:
        finish(connection)
        yield
        take(connection, MUCH, and_end=True)


def both_ends_under_way(connection, is_server):
    if is_server:
        finish_behind_much(connection)
        yield
        take(connection, LITTLE, and_end=True)
    else:
        time.sleep(0.3)
        connection.sendall(PATTERN[:LITTLE])
        finish(connection)
        yield
        take(connection, MUCH, and_end=True)


STATES = [established, full, client_has_finished, server_has_finished, end_under_way,
          last_end_under_way, both_ends_under_way]


def play(state, connection, is_server):
    try:
        acts = state(connection, is_server)
        next(acts)
        say(f"set {state.__name__}")
        await_flag()
        for _ in acts:
            pass
        say(f"done {state.__name__}")
    except Exception as error:
        say(f"BAD {state.__name__}: {error!r}")


def asking_server(own, there):
    """SYN_SENT: who is asked has no room for him yet."""
    connection = socket.socket(LISTEN_FAMILY)
    connection.bind((mapped(own), 0))
    say("set asking")
    try:
        connection.connect((mapped(there[0]), there[1]))
        take(connection, LITTLE, and_end=True)
        say("done asking")
    except Exception as error:
        say(f"BAD asking: {error!r}")


def mapped(address):
    """An address as a socket of the listener's family takes it."""
    return "::ffff:" + address if LISTEN_FAMILY != FAMILY else address


def serve(listen, port, own):
    both = LISTEN_FAMILY == socket.AF_INET6
    listener = socket.create_server((listen, port), family=LISTEN_FAMILY, dualstack_ipv6=both)
    say("listening")
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=greet, args=(connection, own)).start()


def greet(connection, own):
    connection.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, MUCH)
    name = connection.makefile("rb", buffering=0).readline().decode().split()
    if name[0] == "asking":
        asking_server(own, (name[1], int(name[2])))
    else:
        play(next(one for one in STATES if one.__name__ == name[0]), connection, True)


def call(server, port, name):
    connection = socket.socket(FAMILY)
    if name not in ("full", "established"):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, LITTLE * 4)
    connection.connect((server, port))
    connection.sendall(name.encode() + b"\n")
    return connection


def call_all(server, port, own):
    players = []
    for state in STATES:
        connection = call(server, port, state.__name__)
        players.append(threading.Thread(target=play, args=(state, connection, False)))
    players.append(threading.Thread(target=asked, args=(server, port, own)))
    for player in players:
        player.start()
    for player in players:
        player.join()


def asked(server, port, own):
    listener = socket.create_server((own, 0), family=FAMILY, backlog=1)
    here = listener.getsockname()[:2]
    before = [socket.create_connection(here) for _ in range(2)]
    order = call(server, port, f"asking {here[0]} {here[1]}")
    time.sleep(0.3)
    say("set asked")
    await_flag()
    for _ in before:
        listener.accept()[0].close()
    connection, _ = listener.accept()
    connection.sendall(PATTERN[:LITTLE])
    connection.close()
    order.close()
    say("done asked")


ROLE, WHERE, PORT, OWN, FLAG = sys.argv[1:]
FAMILY = socket.AF_INET6 if ":" in OWN else socket.AF_INET
LISTEN_FAMILY = socket.AF_INET6 if ":" in WHERE else socket.AF_INET
if ROLE == "serve":
    serve(WHERE, int(PORT), OWN)
else:
    call_all(WHERE, int(PORT), OWN)
