/* Threads that wait in the kernel, each in another system call. A move must not end a wait early, nor
 * make it last for ever, nor let the program see an EINTR that signal(7) does not allow. */
#include "prove.h"
#include <linux/futex.h>
#include <poll.h>
#include <semaphore.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/un.h>

static int pipe_ends[2], epoll_set, empty_pair[2], full_pair[2], datagrams[2], listener;
static sem_t semaphore;
static _Atomic uint32_t word;
static atomic_bool ending;
static atomic_int ended;
static atomic_long naps;
static char reason[200];
static atomic_bool bad;

static void fail(const char *what, long result) {
	if (!ending && !atomic_exchange(&bad, true))
		snprintf(reason, sizeof reason, "%s returned %ld (errno %d)", what, result, errno);
	ended++;
}

static void *in_read(void *unused) { char byte; fail("read", read(pipe_ends[0], &byte, 1)); return unused; }
static void *in_poll(void *unused) {
	fail("poll", poll(&(struct pollfd){.fd = pipe_ends[0], .events = POLLIN}, 1, -1));
	return unused;
}
static void *in_select(void *unused) {
	fd_set set;
	FD_ZERO(&set);
	FD_SET(pipe_ends[0], &set);
	fail("select", select(pipe_ends[0] + 1, &set, NULL, NULL, NULL));
	return unused;
}
static void *in_futex(void *unused) {
	fail("futex", syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0));
	return unused;
}
static void *in_semaphore(void *unused) { fail("sem_wait", sem_wait(&semaphore)); return unused; }
/* Sockets with a time limit that is far away. */
static void *in_recv(void *unused) { char byte; fail("recv", recv(empty_pair[0], &byte, 1, 0)); return unused; }
static void *in_send(void *unused) { fail("send", send(full_pair[0], "x", 1, 0)); return unused; }
/* It may return early with the one message that is there, and then it is called again. */
static void *in_recvmmsg(void *unused) {
	char bytes[2];
	struct iovec parts[2] = {{bytes, 1}, {bytes + 1, 1}};
	struct mmsghdr messages[2] = {{.msg_hdr = {.msg_iov = parts, .msg_iovlen = 1}}, {.msg_hdr = {.msg_iov = parts + 1, .msg_iovlen = 1}}};
	int result = 1;
	while (!ending && result == 1) {
		send(datagrams[1], "x", 1, 0);
		result = recvmmsg(datagrams[0], messages, 2, 0, NULL);
	}
	fail("recvmmsg", result);
	return unused;
}
static void *in_accept(void *unused) { fail("accept", accept(listener, NULL, NULL)); return unused; }
/* epoll_wait may return EINTR after a stop, by signal(7). */
static void *in_epoll(void *unused) {
	struct epoll_event event;
	int result;
	while ((result = epoll_wait(epoll_set, &event, 1, -1)) == -1 && errno == EINTR)
		;
	fail("epoll_wait", result);
	return unused;
}
/* Relative sleeps, one after the other: never shorter than asked for. */
static void nap(const char *what, long ms, long result, int64_t start) {
	int64_t slept = now_ns(CLOCK_MONOTONIC) - start;
	if (!ending && (result != 0 || slept < ms * 1000000))
		fail(what, slept / 1000000);
	naps++;
}
static void *in_nanosleep(void *unused) {
	while (!ending) {
		int64_t start = now_ns(CLOCK_MONOTONIC);
		struct timespec time = {0, 700000000};
		nap("nanosleep", 700, nanosleep(&time, &time), start);
	}
	return unused;
}
static void *in_poll_timeout(void *unused) {
	while (!ending) {
		int64_t start = now_ns(CLOCK_MONOTONIC);
		nap("poll(500)", 500, poll(NULL, 0, 500), start);
	}
	return unused;
}

static void *(*const waits[])(void *) = {in_read, in_poll, in_select, in_futex, in_semaphore, in_epoll,
	in_recv, in_send, in_accept, in_recvmmsg, in_nanosleep, in_poll_timeout};
#define WAITS 12
#define ENDLESS 10

static struct sockaddr_un listener_name = {.sun_family = AF_UNIX, .sun_path = "\0blocked"};

static void end_on_sockets(void) {
	char drained[6];
	int client = socket(AF_UNIX, SOCK_STREAM, 0);
	connect(client, (struct sockaddr *)&listener_name, sizeof listener_name);
	(void)!write(empty_pair[1], "x", 1);
	send(datagrams[1], "x", 1, 0);
	while (recv(full_pair[1], drained, sizeof drained, MSG_DONTWAIT) > 0)
		;
}

static bool check(void) {
	static long before, idle;
	EXPECT(!bad, "%s", reason);
	idle = naps == before ? idle + 1 : 0, before = naps;
	EXPECT(idle < 600, "no sleep ended for 30 s");
	if (!prove_last)
		return true;
	/* And now all of them come back, as soon as there is a reason. Three wait for the pipe alone. */
	ending = true;
	word = 1;
	sem_post(&semaphore);
	syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	end_on_sockets();
	for (int i = 0; i < ENDLESS; i++)
		EXPECT_EQ(write(pipe_ends[1], "x", 1), 1);
	for (int i = 0; ended < ENDLESS; i++, usleep(1000))
		EXPECT(i < 20000, "only %d waits ended", ended);
	return true;
}

static void spoil(void) { NEED(write(pipe_ends[1], "x", 1) == 1); }

static void make_sockets(void) {
	struct timeval limit = {.tv_sec = 100000};
	NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, empty_pair) == 0 && socketpair(AF_UNIX, SOCK_DGRAM, 0, datagrams) == 0);
	/* Of a stream the kernel would make larger pieces, which need less room: it would not be full any more. */
	NEED(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, full_pair) == 0);
	while (send(full_pair[0], "filled", 6, MSG_DONTWAIT) > 0)
		;
	listener = socket(AF_UNIX, SOCK_STREAM, 0);
	NEED(bind(listener, (struct sockaddr *)&listener_name, sizeof listener_name) == 0 && listen(listener, 1) == 0);
	NEED(setsockopt(empty_pair[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0);
	NEED(setsockopt(full_pair[0], SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) == 0);
	NEED(setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0);
}

int main(void) {
	make_sockets();
	NEED(pipe(pipe_ends) == 0 && sem_init(&semaphore, 0, 0) == 0);
	epoll_set = epoll_create1(0);
	NEED(epoll_ctl(epoll_set, EPOLL_CTL_ADD, pipe_ends[0], &(struct epoll_event){.events = EPOLLIN}) == 0);
	for (int i = 0; i < WAITS; i++) {
		pthread_t thread;
		NEED(pthread_create(&thread, NULL, waits[i], NULL) == 0);
	}
	return prove(check, spoil);
}
