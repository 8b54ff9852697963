/* Pairs of unix sockets with queued data both ways: stream, datagram and packet; one to a child. */
#include "prove.h"
#include <sys/socket.h>

static int pairs[3][2], child_pair[2];
static int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};
static long round_number;

/* Three messages of different lengths are always queued in both directions. */
static int length_of(long number) { return 5 + number % 3 * 700; }

static void put(int socket, long number) {
	char message[2000];
	memset(message, 'a' + number % 26, sizeof message);
	NEED(send(socket, message, length_of(number), 0) == length_of(number));
}

static bool take(int socket, long number) {
	char message[2000];
	EXPECT_EQ(recv(socket, message, length_of(number), 0), length_of(number));
	for (int i = 0; i < length_of(number); i++)
		EXPECT_EQ(message[i], 'a' + number % 26);
	return true;
}

static bool check_pair(int type) {
	int value;
	socklen_t length = sizeof value;
	EXPECT_EQ(getsockopt(pairs[type][0], SOL_SOCKET, SO_TYPE, &value, &length), 0);
	EXPECT_EQ(value, types[type]);
	for (int end = 0; end < 2; end++) {
		if (!take(pairs[type][end], round_number))
			return false;
		put(pairs[type][!end], round_number + 3);
	}
	return true;
}

static bool check(void) {
	char byte = 'x';
	for (int type = 0; type < 3; type++)
		if (!check_pair(type))
			return false;
	round_number++;
	EXPECT_EQ(send(child_pair[0], &byte, 1, 0), 1);
	EXPECT_EQ(recv(child_pair[0], &byte, 1, 0), 1);
	EXPECT_EQ(byte, 'y');
	return true;
}

static void spoil(void) { NEED(recv(pairs[1][0], (char[9]){0}, 9, 0) > 0); }

static void answer_forever(void) {
	char byte;
	while (recv(child_pair[1], &byte, 1, 0) == 1 && ++byte && send(child_pair[1], &byte, 1, 0) == 1)
		;
	_exit(0);
}

int main(void) {
	signal(SIGPIPE, SIG_IGN);
	for (int type = 0; type < 3; type++) {
		NEED(socketpair(AF_UNIX, types[type] | SOCK_NONBLOCK, 0, pairs[type]) == 0);
		for (long number = 0; number < 3; number++)
			put(pairs[type][0], number), put(pairs[type][1], number);
	}
	NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, child_pair) == 0);
	if (fork_child() == 0)
		answer_forever();
	return prove(check, spoil);
}
