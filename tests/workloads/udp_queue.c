/* A UDP socket with datagrams in its queue, which it gets from itself, a packet filter, and a group. */
#include "prove.h"
#include <arpa/inet.h>
#include <linux/filter.h>
#include <net/if.h>

#define QUEUED 8

static int bound;
static struct sockaddr_in address = {.sin_family = AF_INET};
static uint64_t sent, received;

static bool send_next(void) {
	uint64_t number = mix(sent++);
	return sendto(bound, &number, sizeof number, 0, (struct sockaddr *)&address, sizeof address) == sizeof number;
}

static bool check(void) {
	struct sockaddr_in from;
	struct ip_mreqn group = {.imr_multiaddr = {inet_addr("233.252.0.7")}, .imr_ifindex = if_nametoindex("lo")};
	socklen_t length = sizeof from, instructions = 0;
	uint64_t number = 0;
	EXPECT_EQ(recvfrom(bound, &number, sizeof number, MSG_DONTWAIT, (struct sockaddr *)&from, &length), 8);
	EXPECT_EQ(number, mix(received++));
	EXPECT_EQ(from.sin_addr.s_addr, address.sin_addr.s_addr);
	EXPECT_EQ(from.sin_port, address.sin_port);
	EXPECT_EQ(getsockopt(bound, SOL_SOCKET, SO_GET_FILTER, NULL, &instructions), 0);
	EXPECT_EQ(instructions, 1);
	/* It is in that group already. */
	EXPECT_EQ(setsockopt(bound, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof group), -1);
	EXPECT_EQ(errno, EADDRINUSE);
	EXPECT_EQ(send_next(), true);
	return true;
}

static void spoil(void) { sent++; NEED(send_next()); }

int main(void) {
	struct sock_filter all = BPF_STMT(BPF_RET | BPF_K, 0xffff);
	struct sock_fprog filter = {.len = 1, .filter = &all};
	struct ip_mreqn group = {.imr_multiaddr = {inet_addr("233.252.0.7")}, .imr_ifindex = if_nametoindex("lo")};
	socklen_t length = sizeof address;
	bound = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	NEED(bind(bound, (struct sockaddr *)&address, sizeof address) == 0);
	NEED(getsockname(bound, (struct sockaddr *)&address, &length) == 0);
	NEED(setsockopt(bound, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter) == 0);
	NEED(setsockopt(bound, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof group) == 0);
	while (sent < QUEUED)
		NEED(send_next());
	return prove(check, spoil);
}
