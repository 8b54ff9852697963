/* TCP connections to itself in every state that lasts, with IPv4, IPv6 and IPv4 in IPv6: with all queues
 * full, shut by one end or by both with much that nobody has read, closed by one, over, reset, and not
 * answered yet. */
#include "prove.h"
#include <arpa/inet.h>
#include <linux/filter.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

enum { V4, V6, MAPPED, FAMILIES };
enum { FULL, SHUT, SHUT_FULL, ANSWERED_FULL, BOTH_SHUT_FULL, OVER, RESET, GONE, STATES };

#define BITE 4096

struct end { int socket; uint64_t sent, received; };
static struct family {
	int domain, listener, deaf, asking, blocked;
	struct sockaddr_in6 address, deaf_address;
	socklen_t length;
	struct end ends[STATES][2];
	atomic_int connected;
} families[FAMILIES] = {[V4] = {.domain = AF_INET}, [V6] = {.domain = AF_INET6}, [MAPPED] = {.domain = AF_INET6}};

static struct sockaddr *any(struct sockaddr_in6 *address) { return (struct sockaddr *)address; }

static bool state_is(int socket, int expected) {
	struct tcp_info info;
	socklen_t length = sizeof info;
	EXPECT_EQ(getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &length), 0);
	EXPECT_EQ(info.tcpi_state, expected);
	return true;
}

/* Bytes that follow from their place in the stream; 251 is prime. */
static uint8_t byte_at(uint64_t place) { return place % 251; }

static void send_until_full(struct end *end) {
	static uint8_t bytes[1 << 16];
	ssize_t length;
	do {
		for (size_t i = 0; i < sizeof bytes; i++)
			bytes[i] = byte_at(end->sent + i);
		length = send(end->socket, bytes, sizeof bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
		end->sent += length > 0 ? length : 0;
	} while (length > 0);
}

/* Also when the kernel has handed over all that the other end has room for. */
static void stuff(struct end *end) {
	uint64_t before;
	do {
		before = end->sent;
		for (int i = 0; i < 5; i++, usleep(2000))
			send_until_full(end);
	} while (end->sent != before);
}

/* poll(2) ends for the signal that asks for the last check. */
static bool is_ready(int socket, short events) {
	struct pollfd one = {.fd = socket, .events = events};
	int result;
	while ((result = poll(&one, 1, 40000)) == -1 && errno == EINTR)
		;
	EXPECT_EQ(result, 1);
	return true;
}

static bool take(struct end *end, size_t most, ssize_t *length) {
	static uint8_t bytes[1 << 16];
	if (!is_ready(end->socket, POLLIN))
		return false;
	*length = recv(end->socket, bytes, most, MSG_DONTWAIT);
	EXPECT(*length >= 0, "errno %d", errno);
	for (ssize_t i = 0; i < *length; i++)
		EXPECT_EQ(bytes[i], byte_at(end->received + i));
	end->received += *length;
	return true;
}

/* All that the other end has sent, and then the end, for ever. */
static bool comes_to_an_end(struct end *end, const struct end *other) {
	for (ssize_t length = 1; length > 0;)
		if (!take(end, 1 << 16, &length))
			return false;
	EXPECT_EQ(end->received, other->sent);
	EXPECT_EQ(recv(end->socket, (char[1]){0}, 1, 0), 0);
	return true;
}

static bool flows_both_ways(struct end pair[2]) {
	ssize_t length;
	for (int end = 0; end < 2; end++) {
		if (!take(&pair[end], BITE, &length))
			return false;
		send_until_full(&pair[!end]);
	}
	return true;
}

static bool passes(struct end *from, struct end *to) {
	uint8_t byte = byte_at(from->sent);
	ssize_t length;
	EXPECT_EQ(send(from->socket, &byte, 1, MSG_NOSIGNAL), 1);
	from->sent++;
	return take(to, 1, &length);
}

static const struct { int level, name, value; } options[] = {
	{IPPROTO_TCP, TCP_NODELAY, 1}, {IPPROTO_TCP, TCP_KEEPIDLE, 77}, {IPPROTO_TCP, TCP_KEEPINTVL, 7},
	{IPPROTO_TCP, TCP_KEEPCNT, 5}, {IPPROTO_TCP, TCP_USER_TIMEOUT, 60000}, {IPPROTO_TCP, TCP_NOTSENT_LOWAT, 100000},
	{SOL_SOCKET, SO_KEEPALIVE, 1}, {SOL_SOCKET, SO_MARK, 7}, {SOL_SOCKET, SO_PRIORITY, 3}, {SOL_SOCKET, SO_RCVLOWAT, 3},
	{IPPROTO_IP, IP_TOS, 0x10}, {IPPROTO_TCP, TCP_LINGER2, 9},
};

static bool has_options(int socket) {
	struct linger linger = {0};
	char name[16] = {0};
	socklen_t length = sizeof linger;
	for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
		int value = 0;
		length = sizeof value;
		EXPECT_EQ(getsockopt(socket, options[i].level, options[i].name, &value, &length), 0);
		EXPECT(value == options[i].value, "option %d of %d is %d", options[i].name, options[i].level, value);
	}
	length = sizeof linger;
	EXPECT_EQ(getsockopt(socket, SOL_SOCKET, SO_LINGER, &linger, &length), 0);
	EXPECT_EQ(linger.l_onoff * 100 + linger.l_linger, 107);
	length = sizeof name;
	EXPECT_EQ(getsockopt(socket, IPPROTO_TCP, TCP_CONGESTION, name, &length), 0);
	EXPECT(strcmp(name, "reno") == 0, "the congestion control is %s", name);
	length = 0;
	EXPECT_EQ(getsockopt(socket, SOL_SOCKET, SO_GET_FILTER, NULL, &length), 0);
	EXPECT_EQ(length, 1);
	return true;
}

/* What is shut stays shut, and goes on the other way. */
static bool check_lasting(struct family *family) {
	struct end (*ends)[2] = family->ends;
	if (!flows_both_ways(ends[FULL]) || !has_options(ends[FULL][0].socket))
		return false;
	if (!state_is(ends[SHUT][0].socket, TCP_FIN_WAIT2) || !state_is(ends[SHUT][1].socket, TCP_CLOSE_WAIT))
		return false;
	if (!passes(&ends[SHUT][1], &ends[SHUT][0]))
		return false;
	if (!state_is(ends[SHUT_FULL][0].socket, TCP_FIN_WAIT1) || !passes(&ends[SHUT_FULL][1], &ends[SHUT_FULL][0]))
		return false;
	return state_is(ends[ANSWERED_FULL][1].socket, TCP_LAST_ACK) && state_is(ends[BOTH_SHUT_FULL][0].socket, TCP_FIN_WAIT1)
		&& state_is(ends[BOTH_SHUT_FULL][1].socket, TCP_FIN_WAIT1);
}

static bool check_over(struct family *family) {
	for (int end = 0; end < 2; end++) {
		int socket = family->ends[OVER][end].socket;
		EXPECT_EQ(recv(socket, (char[1]){0}, 1, 0), 0);
		EXPECT_EQ(send(socket, "x", 1, MSG_NOSIGNAL), -1);
		EXPECT_EQ(errno, EPIPE);
	}
	if (!prove_last)
		return true;
	EXPECT_EQ(recv(family->ends[RESET][0].socket, (char[1]){0}, 1, 0), -1);
	EXPECT_EQ(errno, ECONNRESET);
	return comes_to_an_end(&family->ends[GONE][1], &family->ends[GONE][0]);
}

static bool check_ends(struct family *family) {
	struct end (*ends)[2] = family->ends;
	static const int shut[] = {SHUT, SHUT_FULL, ANSWERED_FULL, BOTH_SHUT_FULL};
	shutdown(ends[SHUT][1].socket, SHUT_WR), shutdown(ends[SHUT_FULL][1].socket, SHUT_WR);
	for (size_t i = 0; i < sizeof shut / sizeof *shut; i++)
		for (int end = 0; end < 2; end++)
			if (!comes_to_an_end(&ends[shut[i]][end], &ends[shut[i]][!end]))
				return false;
	return true;
}

/* Two that nobody has answered, one of them in a thread that waits for it. Now somebody does. */
static bool check_asking(struct family *family) {
	if (!prove_last) {
		EXPECT_EQ(family->connected, 0);
		return state_is(family->asking, TCP_SYN_SENT);
	}
	EXPECT_EQ(setsockopt(family->deaf, SOL_SOCKET, SO_DETACH_FILTER, &(int){0}, sizeof(int)), 0);
	if (!is_ready(family->asking, POLLOUT))
		return false;
	EXPECT_EQ(connect(family->asking, any(&family->deaf_address), family->length), 0);
	for (int i = 0; !family->connected; i++, usleep(1000))
		EXPECT(i < 40000, "connect did not return");
	EXPECT(family->connected == 1, "connect failed with %d", -family->connected);
	for (int i = 0; i < 2; i++)
		EXPECT(accept(family->deaf, NULL, NULL) >= 0, "errno %d", errno);
	return true;
}

static bool check(void) {
	for (struct family *family = families; family < families + FAMILIES; family++)
		if (!check_lasting(family) || !check_over(family) || !check_asking(family)
			|| (prove_last && !check_ends(family)))
			return false;
	return true;
}

static void spoil(void) { NEED(recv(families[V6].ends[FULL][0].socket, (char[9]){0}, 9, 0) == 9); }

static int listen_at(struct family *family, struct sockaddr_in6 *address) {
	int listener = socket(family->domain, SOCK_STREAM | SOCK_CLOEXEC, 0);
	*address = (struct sockaddr_in6){.sin6_family = family->domain};
	if (family == &families[V4])
		((struct sockaddr_in *)address)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	else
		inet_pton(AF_INET6, family == &families[V6] ? "::1" : "::ffff:127.0.0.1", &address->sin6_addr);
	family->length = family->domain == AF_INET ? sizeof(struct sockaddr_in) : sizeof *address;
	NEED(bind(listener, any(address), family->length) == 0 && listen(listener, 8) == 0);
	NEED(getsockname(listener, any(address), &family->length) == 0);
	return listener;
}

static int new_client(struct family *family, int flags) {
	int client = socket(family->domain, SOCK_STREAM | flags, 0);
	NEED(client >= 0);
	return client;
}

static void join(struct family *family, int state) {
	struct end *pair = family->ends[state];
	/* One has buffers that were never set: several MiB in each queue. */
	bool is_large = family == &families[V4] && state == FULL;
	pair[0].socket = new_client(family, 0);
	NEED(connect(pair[0].socket, any(&family->address), family->length) == 0);
	NEED((pair[1].socket = accept(family->listener, NULL, NULL)) >= 0);
	for (int end = 0; end < 2 && !is_large; end++)
		NEED(setsockopt(pair[end].socket, SOL_SOCKET, SO_SNDBUF, &(int){40000}, sizeof(int)) == 0
			&& setsockopt(pair[end].socket, SOL_SOCKET, SO_RCVBUF, &(int){30000}, sizeof(int)) == 0);
}

static void set_options(int socket) {
	struct sock_filter all = BPF_STMT(BPF_RET | BPF_K, 0xffff);
	struct sock_fprog filter = {.len = 1, .filter = &all};
	struct linger linger = {1, 7};
	for (size_t i = 0; i < sizeof options / sizeof *options; i++)
		NEED(setsockopt(socket, options[i].level, options[i].name, &options[i].value, sizeof(int)) == 0);
	NEED(setsockopt(socket, SOL_SOCKET, SO_PRIORITY, &(int){3}, sizeof(int)) == 0);
	NEED(setsockopt(socket, SOL_SOCKET, SO_LINGER, &linger, sizeof linger) == 0);
	NEED(setsockopt(socket, IPPROTO_TCP, TCP_CONGESTION, "reno", 4) == 0);
	NEED(setsockopt(socket, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter) == 0);
}

static void bring_about(struct end ends[STATES][2]) {
	struct linger none = {1, 0};
	for (int end = 0; end < 2; end++) {
		stuff(&ends[FULL][end]);
		stuff(&ends[BOTH_SHUT_FULL][end]);
	}
	NEED(shutdown(ends[SHUT][0].socket, SHUT_WR) == 0);
	stuff(&ends[SHUT_FULL][0]);
	NEED(shutdown(ends[SHUT_FULL][0].socket, SHUT_WR) == 0);
	NEED(shutdown(ends[ANSWERED_FULL][0].socket, SHUT_WR) == 0);
	stuff(&ends[ANSWERED_FULL][1]);
	NEED(shutdown(ends[ANSWERED_FULL][1].socket, SHUT_WR) == 0);
	for (int end = 0; end < 2; end++) {
		NEED(shutdown(ends[BOTH_SHUT_FULL][end].socket, SHUT_WR) == 0);
		NEED(shutdown(ends[OVER][end].socket, SHUT_WR) == 0);
	}
	NEED(setsockopt(ends[RESET][1].socket, SOL_SOCKET, SO_LINGER, &none, sizeof none) == 0);
	NEED(close(ends[RESET][1].socket) == 0);
	ends[GONE][0].sent = 3;
	NEED(send(ends[GONE][0].socket, "\0\1\2", 3, 0) == 3 && close(ends[GONE][0].socket) == 0);
}

static void *connect_and_wait(void *family_of) {
	struct family *family = family_of;
	int result = connect(family->blocked, any(&family->deaf_address), family->length);
	family->connected = result == 0 ? 1 : -errno;
	return NULL;
}

/* A listener that hears nothing. */
static void ask_in_vain(struct family *family) {
	struct sock_filter none = BPF_STMT(BPF_RET | BPF_K, 0);
	struct sock_fprog filter = {.len = 1, .filter = &none};
	pthread_t thread;
	family->deaf = listen_at(family, &family->deaf_address);
	NEED(setsockopt(family->deaf, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter) == 0);
	family->asking = new_client(family, SOCK_NONBLOCK), family->blocked = new_client(family, 0);
	NEED(connect(family->asking, any(&family->deaf_address), family->length) == -1 && errno == EINPROGRESS);
	NEED(pthread_create(&thread, NULL, connect_and_wait, family) == 0);
}

int main(void) {
	for (struct family *family = families; family < families + FAMILIES; family++) {
		family->listener = listen_at(family, &family->address);
		for (int state = 0; state < STATES; state++)
			join(family, state);
		set_options(family->ends[FULL][0].socket);
		bring_about(family->ends);
		ask_in_vain(family);
	}
	return prove(check, spoil);
}
