/* Writes of 8 MiB into pipes and sockets whose readers are slow, in a child: nearly always each of them
 * has handed over a part and waits with the rest. A call may end early, with the number of bytes that it
 * has taken; what arrives must be the very stream, no byte twice and none lost, and nobody sees an EINTR. */
#include "prove.h"
#include <arpa/inet.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define PERIOD 1000003
#define BIG (8 << 20)
#define BITE 65536

enum { WRITE, WRITEV, SENDMSG, SENDFILE, SPLICE, VMSPLICE };
enum { READ, WAITALL, RECVMSG };
enum { PIPE, UNIX, TCP4, TCP6 };
static const struct route {
	const char *name;
	int through, put, take;
	bool timed;
} routes[] = {
	{"pipe, write", PIPE, WRITE, READ, false},
	{"pipe, writev", PIPE, WRITEV, READ, false},
	{"pipe, vmsplice", PIPE, VMSPLICE, READ, false},
	{"pipe, sendfile", PIPE, SENDFILE, READ, false},
	{"unix, write", UNIX, WRITE, WAITALL, false},
	{"unix, sendmsg", UNIX, SENDMSG, RECVMSG, true},
	{"unix, sendfile", UNIX, SENDFILE, READ, true},
	{"tcp, write", TCP4, WRITE, READ, true},
	{"tcp, sendmsg", TCP6, SENDMSG, WAITALL, false},
	{"tcp, sendfile", TCP4, SENDFILE, RECVMSG, false},
	{"tcp, splice", TCP6, SPLICE, READ, false},
};
#define ROUTES (int)(sizeof routes / sizeof *routes)

static char *pattern;
static int file, ends[ROUTES][2];
static struct shared {
	_Atomic uint64_t written[ROUTES], taken[ROUTES];
	atomic_bool ending, bad;
	atomic_int arrived;
	char reason[200];
} *shared;

static void fail(const char *name, const char *what, long result) {
	if (!atomic_exchange(&shared->bad, true))
		snprintf(shared->reason, sizeof shared->reason, "%s: %s %ld (errno %d)", name, what, result, errno);
}

static const char *at(uint64_t position) { return pattern + position % PERIOD; }

static long put_vector(const struct route *route, int fd, const char *from) {
	struct iovec parts[3] = {{(char *)from, 5}, {(char *)from + 5, BIG / 2}, {(char *)from + 5 + BIG / 2, BIG / 2 - 5}};
	struct msghdr message = {.msg_iov = parts, .msg_iovlen = 3};
	switch (route->put) {
	case WRITEV: return writev(fd, parts, 3);
	case VMSPLICE: return vmsplice(fd, parts, 3, 0);
	default: return sendmsg(fd, &message, MSG_NOSIGNAL);
	}
}

/* A pipe of its own, filled and emptied again and again. */
static long put_spliced(int fd, uint64_t position) {
	static int way[2];
	static uint64_t within;
	if (way[1] == 0)
		NEED(pipe(way) == 0 && fcntl(way[1], F_SETPIPE_SZ, 1 << 20) > 0);
	if (within == 0)
		within = write(way[1], at(position), 1 << 20);
	long result = splice(way[0], NULL, fd, NULL, within, 0);
	within -= result > 0 ? result : 0;
	return result;
}

static long put(const struct route *route, int fd, uint64_t position) {
	off_t offset = position % PERIOD, before = offset;
	long result;
	switch (route->put) {
	case WRITE: return write(fd, at(position), BIG);
	case SPLICE: return put_spliced(fd, position);
	case SENDFILE:
		result = sendfile(fd, file, &offset, BIG);
		if (offset != before + (result > 0 ? result : 0))
			fail(route->name, "the offset of sendfile is", offset);
		return result;
	default: return put_vector(route, fd, at(position));
	}
}

static void *write_forever(void *number) {
	int own = (intptr_t)number;
	while (!shared->ending) {
		long result = put(&routes[own], ends[own][1], shared->written[own]);
		if (result <= 0) {
			fail(routes[own].name, "a write returned", result);
			break;
		}
		shared->written[own] += result;
	}
	close(ends[own][1]);
	return NULL;
}

static long take(const struct route *route, int fd, char *to) {
	struct iovec parts[2] = {{to, 100}, {to + 100, BITE - 100}};
	struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
	switch (route->take) {
	case WAITALL: return recv(fd, to, BITE, MSG_WAITALL);
	case RECVMSG: return recvmsg(fd, &message, 0);
	default: return read(fd, to, BITE);
	}
}

static void *read_forever(void *number) {
	int own = (intptr_t)number;
	static __thread char bite[BITE];
	long result;
	while ((result = take(&routes[own], ends[own][0], bite)) > 0) {
		if (memcmp(bite, at(shared->taken[own]), result) != 0)
			fail(routes[own].name, "other bytes arrived behind", shared->taken[own]);
		shared->taken[own] += result;
		if (!shared->ending)
			usleep(20000);
	}
	if (result != 0)
		fail(routes[own].name, "a read returned", result);
	shared->arrived++;
	return NULL;
}

static void start_all(void *(*thread)(void *), int other_end) {
	for (intptr_t own = 0; own < ROUTES; own++) {
		pthread_t unused;
		close(ends[own][other_end]);
		NEED(pthread_create(&unused, NULL, thread, (void *)own) == 0);
	}
}

static bool all_has_arrived(void) {
	shared->ending = true;
	for (int i = 0; shared->arrived < ROUTES; i++, usleep(1000))
		EXPECT(i < 60000 && !shared->bad, "only %d streams came to their end", shared->arrived);
	for (int own = 0; own < ROUTES; own++)
		EXPECT_EQ(shared->taken[own], shared->written[own]);
	EXPECT(!shared->bad, "%s", shared->reason);
	return true;
}

static bool check(void) {
	static uint64_t before[ROUTES];
	static int idle[ROUTES];
	EXPECT(!shared->bad, "%s", shared->reason);
	for (int own = 0; own < ROUTES; own++) {
		idle[own] = shared->taken[own] == before[own] ? idle[own] + 1 : 0;
		before[own] = shared->taken[own];
		EXPECT(idle[own] < 600, "%s: nothing arrived for 30 s", routes[own].name);
	}
	return !prove_last || all_has_arrived();
}

/* One byte is lost. */
static void spoil(void) { shared->taken[0]++; }

static void connect_tcp(int family, int pair[2]) {
	struct sockaddr_in6 address = {.sin6_family = family, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	socklen_t length = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof address;
	if (family == AF_INET)
		((struct sockaddr_in *)&address)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int listener = socket(family, SOCK_STREAM, 0);
	NEED(bind(listener, (struct sockaddr *)&address, length) == 0 && listen(listener, 1) == 0);
	NEED(getsockname(listener, (struct sockaddr *)&address, &length) == 0);
	pair[1] = socket(family, SOCK_STREAM, 0);
	NEED(connect(pair[1], (struct sockaddr *)&address, length) == 0);
	pair[0] = accept(listener, NULL, NULL);
	NEED(pair[0] >= 0 && close(listener) == 0);
}

static void make(const struct route *route, int pair[2]) {
	struct timeval limit = {.tv_sec = 100};
	if (route->through == PIPE)
		NEED(pipe(pair) == 0);
	else if (route->through == UNIX)
		NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	else
		connect_tcp(route->through == TCP4 ? AF_INET : AF_INET6, pair);
	if (route->timed)
		NEED(setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0
			&& setsockopt(pair[1], SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) == 0);
}

int main(void) {
	signal(SIGPIPE, SIG_IGN);
	shared = map_anonymous(sizeof *shared, MAP_SHARED);
	pattern = map_anonymous(BIG + 2 * PERIOD, MAP_PRIVATE);
	fill(pattern, PERIOD + 8, 1);
	for (long i = PERIOD; i < BIG + 2 * PERIOD; i++)
		pattern[i] = pattern[i - PERIOD];
	file = memfd_create("pattern", MFD_CLOEXEC);
	NEED(write(file, pattern, BIG + PERIOD) == BIG + PERIOD);
	for (int own = 0; own < ROUTES; own++)
		make(&routes[own], ends[own]);
	if (fork_child() == 0) {
		start_all(read_forever, 1);
		for (;;)
			pause();
	}
	start_all(write_forever, 0);
	return prove(check, spoil);
}
