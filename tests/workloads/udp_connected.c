/* Connected UDP sockets with queues, on IPv4 and IPv6: what is sent is cut into datagrams by the kernel
 * (UDP_SEGMENT), what comes may be joined again (UDP_GRO). */
#include "prove.h"
#include <arpa/inet.h>
#include <linux/udp.h>
#include <sys/socket.h>

#define PIECE 500
#define PIECES 4

static struct route { int from, to; uint64_t sent, received; } routes[3];

static bool send_next(struct route *route) {
	uint8_t bytes[PIECES * PIECE];
	for (int i = 0; i < PIECES; i++)
		memset(bytes + i * PIECE, (uint8_t)(route->sent + i), PIECE);
	EXPECT_EQ(send(route->from, bytes, sizeof bytes, 0), sizeof bytes);
	route->sent += PIECES;
	return true;
}

/* How long a datagram was before the kernel joined it to others, or all of it. */
static ssize_t piece_of(struct msghdr *message, ssize_t length) {
	int piece = length;
	for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header; header = CMSG_NXTHDR(message, header))
		if (header->cmsg_level == IPPROTO_UDP && header->cmsg_type == UDP_GRO)
			memcpy(&piece, CMSG_DATA(header), sizeof piece);
	return piece;
}

static bool receive_some(struct route *route) {
	uint8_t bytes[PIECES * PIECE];
	char control[200];
	struct iovec part = {bytes, sizeof bytes};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	ssize_t length = recvmsg(route->to, &message, MSG_DONTWAIT);
	EXPECT(length > 0, "%ld arrived of %ld (errno %d)", (long)route->received, (long)route->sent, errno);
	EXPECT_EQ(piece_of(&message, length), PIECE);
	for (ssize_t i = 0; i < length; i++)
		EXPECT_EQ(bytes[i], (uint8_t)(route->received + i / PIECE));
	route->received += length / PIECE;
	return true;
}

static bool check(void) {
	for (int i = 0; i < 3; i++) {
		uint64_t taken = routes[i].received;
		while (routes[i].received < taken + PIECES)
			if (!receive_some(&routes[i]))
				return false;
		if (!send_next(&routes[i]))
			return false;
	}
	return true;
}

static void spoil(void) { NEED(recv(routes[1].to, (char[1]){0}, 1, 0) == 1); }

static int bound(int domain, struct sockaddr_in6 *address, socklen_t *length) {
	int made = socket(domain, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	*address = (struct sockaddr_in6){.sin6_family = domain, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	*length = domain == AF_INET ? sizeof(struct sockaddr_in) : sizeof *address;
	if (domain == AF_INET)
		((struct sockaddr_in *)address)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	NEED(bind(made, (struct sockaddr *)address, *length) == 0);
	NEED(getsockname(made, (struct sockaddr *)address, length) == 0);
	return made;
}

static void make(struct route *route, int domain, bool joins) {
	struct sockaddr_in6 from, to;
	socklen_t length;
	route->from = bound(domain, &from, &length), route->to = bound(domain, &to, &length);
	NEED(connect(route->from, (struct sockaddr *)&to, length) == 0);
	NEED(connect(route->to, (struct sockaddr *)&from, length) == 0);
	NEED(setsockopt(route->from, IPPROTO_UDP, UDP_SEGMENT, &(int){PIECE}, sizeof(int)) == 0);
	NEED(setsockopt(route->to, IPPROTO_UDP, UDP_GRO, &(int){joins}, sizeof(int)) == 0);
	for (int i = 0; i < 3; i++)
		NEED(send_next(route));
}

int main(void) {
	make(&routes[0], AF_INET, true);
	make(&routes[1], AF_INET6, false);
	make(&routes[2], AF_INET6, true);
	return prove(check, spoil);
}
