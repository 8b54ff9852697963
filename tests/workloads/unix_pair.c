/* Pairs of unix sockets at every stage of their end: shut one way or both, closed by the one with a rest
 * for the other, closed too early; one with an urgent byte, one that another user made. */
#include "prove.h"
#include <sys/socket.h>

#define REST 1000

enum { SHUT_TO_WRITE, SHUT_TO_READ, SHUT_BOTH, CLOSED, STAGES };
static int types[] = {SOCK_STREAM, SOCK_SEQPACKET, SOCK_DGRAM};
static int pairs[3][STAGES][2], reset, urgent[2], of_another[2];

static bool fails(int socket, int error) {
	EXPECT_EQ(send(socket, "x", 1, 0), -1);
	EXPECT_EQ(errno, error);
	return true;
}

static bool ends(int socket) {
	EXPECT_EQ(recv(socket, (char[1]){0}, 1, 0), 0);
	return true;
}

static bool passes(int from, int to) {
	static char byte;
	char got = 0;
	byte++;
	EXPECT_EQ(send(from, &byte, 1, 0), 1);
	EXPECT_EQ(recv(to, &got, 1, 0), 1);
	EXPECT_EQ(got, byte);
	return true;
}

static bool has_rest(int socket, int flags) {
	char rest[2 * REST];
	EXPECT_EQ(recv(socket, rest, sizeof rest, flags), REST);
	for (int i = 0; i < REST; i++)
		EXPECT_EQ(rest[i], 'r');
	return true;
}

/* What was sent before is there to the last byte, and behind it is the end. */
static bool is_the_last_of(int socket) {
	return has_rest(socket, MSG_PEEK) && (!prove_last || (has_rest(socket, 0) && ends(socket) && ends(socket)));
}

static bool check_type(int type) {
	int (*pair)[2] = pairs[type];
	bool is_datagram = types[type] == SOCK_DGRAM;
	if (!fails(pair[SHUT_TO_WRITE][0], EPIPE) || !passes(pair[SHUT_TO_WRITE][1], pair[SHUT_TO_WRITE][0]))
		return false;
	if (!fails(pair[SHUT_TO_READ][1], EPIPE) || !passes(pair[SHUT_TO_READ][0], pair[SHUT_TO_READ][1]))
		return false;
	if (!fails(pair[SHUT_BOTH][0], EPIPE))
		return false;
	/* A datagram socket does not hear of the end of another. */
	if (is_datagram)
		return has_rest(pair[SHUT_TO_WRITE][1], MSG_PEEK);
	if (!ends(pair[SHUT_TO_READ][0]) || !ends(pair[SHUT_BOTH][0]) || !ends(pair[SHUT_BOTH][1]))
		return false;
	return is_the_last_of(pair[SHUT_TO_WRITE][1]) && fails(pair[CLOSED][1], EPIPE) && is_the_last_of(pair[CLOSED][1]);
}

static bool check_urgent(void) {
	char text[8] = {0};
	int at_mark = -1;
	EXPECT_EQ(recv(urgent[1], text, 1, MSG_OOB | MSG_PEEK), 1);
	EXPECT_EQ(text[0], '!');
	if (!prove_last)
		return true;
	EXPECT_EQ(recv(urgent[1], text, sizeof text, 0), 2);
	EXPECT_EQ(memcmp(text, "ab", 2), 0);
	EXPECT_EQ(ioctl(urgent[1], SIOCATMARK, &at_mark), 0);
	EXPECT_EQ(at_mark, 1);
	EXPECT_EQ(recv(urgent[1], text, 1, MSG_OOB), 1);
	EXPECT_EQ(recv(urgent[1], text, sizeof text, 0), 2);
	EXPECT_EQ(memcmp(text, "cd", 2), 0);
	return true;
}

static bool check_maker(void) {
	struct ucred maker;
	socklen_t length = sizeof maker;
	for (int end = 0; end < 2; end++) {
		EXPECT_EQ(getsockopt(of_another[end], SOL_SOCKET, SO_PEERCRED, &maker, &length), 0);
		EXPECT_EQ(maker.pid, getpid());
		EXPECT_EQ(maker.uid, 1234);
		EXPECT_EQ(maker.gid, 4321);
	}
	return passes(of_another[0], of_another[1]);
}

/* The error comes once, and then the end. */
static bool check_reset(void) {
	EXPECT_EQ(recv(reset, (char[1]){0}, 1, 0), -1);
	EXPECT_EQ(errno, ECONNRESET);
	return ends(reset);
}

static bool check(void) {
	for (int type = 0; type < 3; type++)
		if (!check_type(type))
			return false;
	return check_urgent() && check_maker() && (!prove_last || check_reset());
}

static void spoil(void) { NEED(recv(pairs[0][CLOSED][1], (char[9]){0}, 9, 0) == 9); }

static void make(int type) {
	char rest[REST];
	memset(rest, 'r', sizeof rest);
	int (*pair)[2] = pairs[type];
	for (int stage = 0; stage < STAGES; stage++)
		NEED(socketpair(AF_UNIX, types[type] | SOCK_NONBLOCK, 0, pair[stage]) == 0);
	NEED(send(pair[SHUT_TO_WRITE][0], rest, REST, 0) == REST && shutdown(pair[SHUT_TO_WRITE][0], SHUT_WR) == 0);
	NEED(shutdown(pair[SHUT_TO_READ][0], SHUT_RD) == 0 && shutdown(pair[SHUT_BOTH][1], SHUT_RDWR) == 0);
	NEED(send(pair[CLOSED][0], rest, REST, 0) == REST && close(pair[CLOSED][0]) == 0);
}

int main(void) {
	int early[2];
	signal(SIGPIPE, SIG_IGN);
	for (int type = 0; type < 3; type++)
		make(type);
	NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, early) == 0 && send(early[1], "unread", 6, 0) == 6);
	NEED(close(early[0]) == 0);
	reset = early[1];
	NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, urgent) == 0 && send(urgent[0], "ab", 2, 0) == 2);
	NEED(send(urgent[0], "!", 1, MSG_OOB) == 1 && send(urgent[0], "cd", 2, 0) == 2);
	NEED(setegid(4321) == 0 && seteuid(1234) == 0);
	NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, of_another) == 0);
	NEED(seteuid(0) == 0 && setegid(0) == 0);
	return prove(check, spoil);
}
