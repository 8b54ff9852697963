/* A raw socket of a protocol that is nobody's. A packet goes only at the last check: queued ones are lost. */
#include "prove.h"
#include <arpa/inet.h>
#include <poll.h>

#define PROTOCOL 253

static int raw;
static struct sockaddr_in address = {.sin_family = AF_INET};

static bool receives(void) {
	char packet[64];
	EXPECT_EQ(sendto(raw, "hello", 5, 0, (struct sockaddr *)&address, sizeof address), 5);
	EXPECT_EQ(poll(&(struct pollfd){.fd = raw, .events = POLLIN}, 1, 10000), 1);
	EXPECT_EQ(recv(raw, packet, sizeof packet, 0), 25);
	EXPECT_EQ(memcmp(packet + 20, "hello", 5), 0);
	return true;
}

static bool check(void) {
	struct sockaddr_in now;
	socklen_t length = sizeof now;
	int protocol = 0, ttl = 0;
	EXPECT_EQ(getsockname(raw, (struct sockaddr *)&now, &length), 0);
	EXPECT_EQ(now.sin_addr.s_addr, address.sin_addr.s_addr);
	length = sizeof protocol;
	EXPECT_EQ(getsockopt(raw, SOL_SOCKET, SO_PROTOCOL, &protocol, &length), 0);
	EXPECT_EQ(protocol, PROTOCOL);
	EXPECT_EQ(getsockopt(raw, IPPROTO_IP, IP_TTL, &ttl, &length), 0);
	EXPECT_EQ(ttl, 42);
	return !prove_last || receives();
}

static void spoil(void) { setsockopt(raw, IPPROTO_IP, IP_TTL, &(int){41}, sizeof(int)); }

int main(void) {
	raw = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, PROTOCOL);
	NEED(raw >= 0);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	NEED(bind(raw, (struct sockaddr *)&address, sizeof address) == 0);
	NEED(setsockopt(raw, IPPROTO_IP, IP_TTL, &(int){42}, sizeof(int)) == 0);
	return prove(check, spoil);
}
