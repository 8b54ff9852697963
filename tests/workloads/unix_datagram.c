/* Unix datagram sockets: one that has messages queued from senders of all sorts, with their names and
 * credentials; some that are connected, to it, to each other, and to one that is closed. */
#include "prove.h"
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { NAMED, ABSTRACT, AUTOBOUND, NAMELESS, CONNECTED, CHILDS, SENDERS };

struct name {
	struct sockaddr_un address;
	socklen_t length;
};
static struct { int socket; struct name name; } senders[SENDERS];
static int hub, mutual[2], turned, abandoned, to_child, child_end;
static struct name hub_name, turned_name;
static pid_t child;
static uint64_t sent, received, rounds;

static struct name name_of(int socket) {
	struct name name = {.length = sizeof name.address};
	memset(&name.address, 0, sizeof name.address);
	NEED(getsockname(socket, (struct sockaddr *)&name.address, &name.length) == 0);
	return name;
}

/* A path, an abstract name behind a zero, or one that the kernel chooses. */
static int bound(const char *name, bool has_name) {
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int made = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	size_t bytes = has_name ? (name[0] ? strlen(name) + 1 : strlen(name + 1) + 1) : 0;
	memcpy(address.sun_path, name, bytes);
	unlink(name);
	NEED(bind(made, (struct sockaddr *)&address, offsetof(struct sockaddr_un, sun_path) + bytes) == 0);
	return made;
}

static bool go_to(int from, const struct name *name) {
	return connect(from, (struct sockaddr *)&name->address, name->length) == 0;
}

static bool say_to_hub(int from, uint64_t number) {
	uint64_t word = mix(number);
	return sendto(from, &word, sizeof word, 0, (struct sockaddr *)&hub_name.address, hub_name.length) == sizeof word;
}

static void send_forever(void) {
	uint64_t number;
	close(to_child);
	while (recv(child_end, &number, sizeof number, 0) == sizeof number) {
		NEED(say_to_hub(senders[CHILDS].socket, number));
		NEED(send(child_end, "", 1, 0) == 1);
	}
	_exit(0);
}

static bool send_next(void) {
	uint64_t number = sent++, word = mix(number);
	switch (number % SENDERS) {
	case CHILDS:
		EXPECT_EQ(send(to_child, &number, sizeof number, 0), sizeof number);
		EXPECT_EQ(recv(to_child, &word, sizeof word, 0), 1);
		break;
	case CONNECTED:
		EXPECT_EQ(send(senders[CONNECTED].socket, &word, sizeof word, 0), sizeof word);
		break;
	default:
		EXPECT(say_to_hub(senders[number % SENDERS].socket, number), "sender %d: errno %d",
			(int)(number % SENDERS), errno);
	}
	return true;
}

static bool is_from(struct msghdr *message, int sender) {
	struct cmsghdr *header = CMSG_FIRSTHDR(message);
	struct ucred from;
	EXPECT(header != NULL && header->cmsg_type == SCM_CREDENTIALS, "it has no credentials");
	memcpy(&from, CMSG_DATA(header), sizeof from);
	EXPECT_EQ(from.pid, sender == CHILDS ? child : getpid());
	EXPECT_EQ(from.uid, 0);
	EXPECT_EQ(message->msg_namelen, senders[sender].name.length > 2 ? senders[sender].name.length : 0);
	EXPECT(memcmp(message->msg_name, &senders[sender].name.address, message->msg_namelen) == 0,
		"sender %d has another name", sender);
	return true;
}

static bool receive_next(void) {
	char control[CMSG_SPACE(sizeof(struct ucred))];
	struct sockaddr_un name;
	uint64_t word = 0;
	struct iovec part = {&word, sizeof word};
	struct msghdr message = {&name, sizeof name, &part, 1, control, sizeof control, 0};
	EXPECT_EQ(recvmsg(hub, &message, 0), sizeof word);
	EXPECT_EQ(word, mix(received));
	return is_from(&message, received++ % SENDERS);
}

/* Two that are connected to each other have two messages each; some are empty. */
static bool talk_to_each_other(void) {
	char message[300];
	for (int end = 0; end < 2; end++) {
		long now = rounds % 3 * 100, then = (rounds + 2) % 3 * 100;
		EXPECT_EQ(recv(mutual[end], message, sizeof message, 0), now);
		EXPECT_EQ(send(mutual[!end], message, then, 0), then);
	}
	rounds++;
	return true;
}

/* It hears nobody but whom it is connected to. */
static bool hears_one_alone(void) {
	char byte = 0;
	EXPECT_EQ(recv(turned, &byte, 1, 0), 1);
	EXPECT_EQ(byte, 'b');
	EXPECT_EQ(sendto(senders[NAMED].socket, "b", 1, 0, (struct sockaddr *)&turned_name.address, turned_name.length), 1);
	EXPECT_EQ(sendto(hub, "x", 1, 0, (struct sockaddr *)&turned_name.address, turned_name.length), -1);
	EXPECT_EQ(errno, EPERM);
	return true;
}

/* The first message to one that was closed says so, and that is the end of the connection. */
static bool is_left_alone(void) {
	EXPECT_EQ(send(abandoned, "x", 1, 0), -1);
	EXPECT_EQ(errno, ECONNREFUSED);
	EXPECT_EQ(send(abandoned, "x", 1, 0), -1);
	EXPECT_EQ(errno, ENOTCONN);
	return true;
}

static bool check(void) {
	for (int i = 0; i < 2; i++)
		if (!receive_next() || !send_next())
			return false;
	return talk_to_each_other() && hears_one_alone() && (!prove_last || is_left_alone());
}

static void spoil(void) { NEED(recv(hub, (char[8]){0}, 8, 0) == 8); }

static void make_senders(void) {
	senders[NAMED].socket = bound("/tmp/unix_datagram.sender", true);
	senders[ABSTRACT].socket = bound("\0unix_datagram.sender", true);
	senders[AUTOBOUND].socket = bound("", false);
	senders[NAMELESS].socket = socket(AF_UNIX, SOCK_DGRAM, 0);
	senders[CONNECTED].socket = socket(AF_UNIX, SOCK_DGRAM, 0);
	senders[CHILDS].socket = bound("\0unix_datagram.child", true);
	for (int i = 0; i < SENDERS; i++)
		senders[i].name = name_of(senders[i].socket);
	NEED(go_to(senders[CONNECTED].socket, &hub_name));
}

static void connect_some(void) {
	struct name names[2];
	int gone = bound("", false);
	for (int end = 0; end < 2; end++)
		mutual[end] = bound(end ? "\0unix_datagram.mutual" : "", end), names[end] = name_of(mutual[end]);
	NEED(go_to(mutual[0], &names[1]) && go_to(mutual[1], &names[0]));
	for (int i = 0; i < 4; i++)
		NEED(send(mutual[i % 2], (char[300]){0}, i / 2 * 100, 0) == i / 2 * 100);
	turned = bound("/tmp/unix_datagram.turned", true), turned_name = name_of(turned);
	abandoned = socket(AF_UNIX, SOCK_DGRAM, 0);
	NEED(go_to(turned, &senders[NAMED].name));
	NEED(sendto(senders[NAMED].socket, "b", 1, 0, (struct sockaddr *)&turned_name.address, turned_name.length) == 1);
	names[0] = name_of(gone);
	NEED(go_to(abandoned, &names[0]) && close(gone) == 0);
}

int main(void) {
	int line[2];
	signal(SIGPIPE, SIG_IGN);
	NEED(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, line) == 0);
	to_child = line[0], child_end = line[1];
	hub = bound("/tmp/unix_datagram.hub", true), hub_name = name_of(hub);
	NEED(setsockopt(hub, SOL_SOCKET, SO_PASSCRED, &(int){1}, sizeof(int)) == 0);
	make_senders();
	if ((child = fork_child()) == 0)
		send_forever();
	connect_some();
	for (int i = 0; i < SENDERS; i++)
		NEED(send_next());
	return prove(check, spoil);
}
