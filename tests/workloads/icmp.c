/* A socket for pings, which this host permits to root's group. It is asked only at the last check: queued
 * answers are lost. */
#include "prove.h"
#include <arpa/inet.h>
#include <netinet/ip_icmp.h>

static int ping;
static struct sockaddr_in address = {.sin_family = AF_INET};

static bool is_answered(void) {
	struct icmphdr request = {.type = ICMP_ECHO, .un.echo.sequence = htons(7)}, answer = {0};
	EXPECT_EQ(send(ping, &request, sizeof request, 0), sizeof request);
	EXPECT_EQ(recv(ping, &answer, sizeof answer, 0), sizeof answer);
	EXPECT_EQ(answer.type, ICMP_ECHOREPLY);
	EXPECT_EQ(answer.un.echo.id, address.sin_port);
	return true;
}

static bool check(void) {
	struct sockaddr_in now;
	socklen_t length = sizeof now;
	int ttl = 0;
	EXPECT_EQ(getsockname(ping, (struct sockaddr *)&now, &length), 0);
	EXPECT_EQ(now.sin_port, address.sin_port);
	EXPECT_EQ(getpeername(ping, (struct sockaddr *)&now, &length), 0);
	EXPECT_EQ(now.sin_addr.s_addr, address.sin_addr.s_addr);
	length = sizeof ttl;
	EXPECT_EQ(getsockopt(ping, IPPROTO_IP, IP_TTL, &ttl, &length), 0);
	EXPECT_EQ(ttl, 42);
	return !prove_last || is_answered();
}

static void spoil(void) { setsockopt(ping, IPPROTO_IP, IP_TTL, &(int){41}, sizeof(int)); }

int main(void) {
	socklen_t length = sizeof address;
	struct timeval limit = {.tv_sec = 10};
	int groups = open("/proc/sys/net/ipv4/ping_group_range", O_WRONLY | O_CLOEXEC);
	NEED(write(groups, "0 0", 3) == 3 && close(groups) == 0);
	ping = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, IPPROTO_ICMP);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	NEED(bind(ping, (struct sockaddr *)&address, length) == 0);
	NEED(getsockname(ping, (struct sockaddr *)&address, &length) == 0);
	struct sockaddr_in peer = {.sin_family = AF_INET, .sin_port = htons(1), .sin_addr = address.sin_addr};
	NEED(connect(ping, (struct sockaddr *)&peer, sizeof peer) == 0);
	NEED(setsockopt(ping, IPPROTO_IP, IP_TTL, &(int){42}, sizeof(int)) == 0);
	NEED(setsockopt(ping, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0);
	return prove(check, spoil);
}
