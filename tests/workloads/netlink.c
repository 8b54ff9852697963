/* A netlink socket with a port id and options. It asks only at the last check: an answer on its way is
 * in the way of a move. */
#include "prove.h"
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

static int netlink;
static struct sockaddr_nl address = {.nl_family = AF_NETLINK};

static bool is_answered(void) {
	struct { struct nlmsghdr header; struct ifinfomsg link; } request = {
		.header = {sizeof request, RTM_GETLINK, NLM_F_REQUEST, 4711, 0}, .link = {.ifi_index = 1}};
	char answer[8192];
	EXPECT_EQ(send(netlink, &request, sizeof request, 0), sizeof request);
	EXPECT(recv(netlink, answer, sizeof answer, 0) > (ssize_t)sizeof request, "errno %d", errno);
	struct nlmsghdr *header = (struct nlmsghdr *)answer;
	EXPECT_EQ(header->nlmsg_type, RTM_NEWLINK);
	EXPECT_EQ(header->nlmsg_seq, 4711);
	EXPECT_EQ(header->nlmsg_pid, address.nl_pid);
	return true;
}

static bool check(void) {
	struct sockaddr_nl now;
	socklen_t length = sizeof now;
	int extended = 0;
	EXPECT_EQ(getsockname(netlink, (struct sockaddr *)&now, &length), 0);
	EXPECT_EQ(now.nl_pid, address.nl_pid);
	length = sizeof extended;
	EXPECT_EQ(getsockopt(netlink, SOL_NETLINK, NETLINK_EXT_ACK, &extended, &length), 0);
	EXPECT_EQ(extended, 1);
	return !prove_last || is_answered();
}

static void spoil(void) { setsockopt(netlink, SOL_NETLINK, NETLINK_EXT_ACK, &(int){0}, sizeof(int)); }

int main(void) {
	socklen_t length = sizeof address;
	netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	NEED(bind(netlink, (struct sockaddr *)&address, sizeof address) == 0);
	NEED(getsockname(netlink, (struct sockaddr *)&address, &length) == 0);
	NEED(setsockopt(netlink, SOL_NETLINK, NETLINK_EXT_ACK, &(int){1}, sizeof(int)) == 0);
	return prove(check, spoil);
}
