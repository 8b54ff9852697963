/* Sockets that listen: IPv4 on a port of its own and IPv6 with options. Nobody connects until the last
 * check, because a connection is another object. */
#include "prove.h"
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>

static int v4, v6;
static uint16_t port4, port6;

static int listen_on(int family, uint16_t *port) {
	struct sockaddr_in6 address = {.sin6_family = family};
	socklen_t length = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof address;
	int one = 1, listener = socket(family, SOCK_STREAM | SOCK_NONBLOCK, 0);
	NEED(listener >= 0 && setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0);
	NEED(setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) == 0);
	NEED(family == AF_INET || setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one) == 0);
	NEED(bind(listener, (struct sockaddr *)&address, length) == 0 && listen(listener, 17) == 0);
	NEED(getsockname(listener, (struct sockaddr *)&address, &length) == 0);
	*port = address.sin6_port;
	return listener;
}

static bool is_listening(int listener, uint16_t port) {
	struct sockaddr_in6 address;
	socklen_t length = sizeof address;
	int value;
	EXPECT_EQ(getsockname(listener, (struct sockaddr *)&address, &length), 0);
	EXPECT_EQ(address.sin6_port, port);
	for (int option = 0; option < 3; option++) {
		int level[] = {SOL_SOCKET, SOL_SOCKET, IPPROTO_TCP};
		int name[] = {SO_ACCEPTCONN, SO_REUSEADDR, TCP_NODELAY};
		length = sizeof value;
		EXPECT_EQ(getsockopt(listener, level[option], name[option], &value, &length), 0);
		EXPECT(value == 1, "option %d is %d", option, value);
	}
	EXPECT_EQ(accept(listener, NULL, NULL), -1);
	EXPECT_EQ(errno, EAGAIN);
	return true;
}

static bool accepts(int listener, uint16_t port) {
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = port,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int client = socket(AF_INET, SOCK_STREAM, 0);
	EXPECT_EQ(connect(client, (struct sockaddr *)&address, sizeof address), 0);
	EXPECT_EQ(poll(&(struct pollfd){.fd = listener, .events = POLLIN}, 1, 10000), 1);
	EXPECT(accept(listener, NULL, NULL) >= 0, "%s", strerror(errno));
	return true;
}

static bool check(void) {
	return is_listening(v4, port4) && is_listening(v6, port6) && (!prove_last || accepts(v4, port4));
}

static void spoil(void) { shutdown(v4, SHUT_RDWR); }

int main(void) {
	v4 = listen_on(AF_INET, &port4);
	v6 = listen_on(AF_INET6, &port6);
	return prove(check, spoil);
}
