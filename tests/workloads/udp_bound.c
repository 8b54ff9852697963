/* A bound UDP socket with options. Datagrams go only at the last check: `udp_queue.c` has some on the way. */
#include "prove.h"
#include <arpa/inet.h>
#include <poll.h>

static int bound;
static struct sockaddr_in address = {.sin_family = AF_INET};

static bool option_is(int level, int name, int expected) {
	int value = 0;
	socklen_t length = sizeof value;
	EXPECT_EQ(getsockopt(bound, level, name, &value, &length), 0);
	EXPECT(value == expected, "option %d is %d, not %d", name, value, expected);
	return true;
}

static bool receives(void) {
	char text[8] = {0};
	int sender = socket(AF_INET, SOCK_DGRAM, 0);
	struct sockaddr_in to = address;
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	EXPECT_EQ(sendto(sender, "hello", 5, 0, (struct sockaddr *)&to, sizeof to), 5);
	EXPECT_EQ(poll(&(struct pollfd){.fd = bound, .events = POLLIN}, 1, 10000), 1);
	EXPECT_EQ(recv(bound, text, sizeof text, 0), 5);
	EXPECT_EQ(memcmp(text, "hello", 5), 0);
	return true;
}

static bool check(void) {
	struct sockaddr_in now;
	socklen_t length = sizeof now;
	EXPECT_EQ(getsockname(bound, (struct sockaddr *)&now, &length), 0);
	EXPECT_EQ(now.sin_port, address.sin_port);
	return option_is(SOL_SOCKET, SO_BROADCAST, 1) && option_is(SOL_SOCKET, SO_RCVBUF, 65536)
		&& option_is(IPPROTO_IP, IP_TTL, 42) && (!prove_last || receives());
}

static void spoil(void) { setsockopt(bound, IPPROTO_IP, IP_TTL, &(int){41}, sizeof(int)); }

int main(void) {
	socklen_t length = sizeof address;
	int one = 1, ttl = 42, buffer = 32768;
	bound = socket(AF_INET, SOCK_DGRAM, 0);
	NEED(setsockopt(bound, SOL_SOCKET, SO_BROADCAST, &one, sizeof one) == 0);
	NEED(setsockopt(bound, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer) == 0);
	NEED(setsockopt(bound, IPPROTO_IP, IP_TTL, &ttl, sizeof ttl) == 0);
	NEED(bind(bound, (struct sockaddr *)&address, sizeof address) == 0);
	NEED(getsockname(bound, (struct sockaddr *)&address, &length) == 0);
	return prove(check, spoil);
}
