/* Descriptors and credentials in flight: sent through pairs of unix sockets of every type, to this
 * process and to a child, and not received yet. Many are open nowhere else. */
#include "prove.h"
#include <sys/socket.h>

#define IN_FLIGHT 2
#define KINDS 4

static const int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};
static struct line {
	int ends[2];
	uint64_t sent, received;
} own[3], to_child[3], answers;

static char text_of(uint64_t number) { return 'a' + number % 26; }

static void post(int socket, const char *bytes, size_t length, const int *descriptors, int count) {
	union { struct cmsghdr header; char room[CMSG_SPACE(2 * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))]; } control = {0};
	struct iovec part = {(char *)bytes, length};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
		.msg_controllen = CMSG_SPACE(count * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))};
	struct ucred sender = {getpid(), 1000 + bytes[0] % 5, 77};
	struct cmsghdr *header = &control.header;
	*header = (struct cmsghdr){CMSG_LEN(count * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
	memcpy(CMSG_DATA(header), descriptors, count * sizeof(int));
	header = CMSG_NXTHDR(&message, header);
	*header = (struct cmsghdr){CMSG_LEN(sizeof sender), SOL_SOCKET, SCM_CREDENTIALS};
	memcpy(CMSG_DATA(header), &sender, sizeof sender);
	NEED(sendmsg(socket, &message, 0) == (ssize_t)length);
}

/* A file without a name, the end of a pipe that nobody writes to any more, a socket in whose queue
 * there is another one, and two ends of one pipe. */
static int pack(uint64_t number, int descriptors[2]) {
	uint64_t word = mix(number);
	int pair[2], inner[2];
	switch (number % KINDS) {
	case 0:
		descriptors[0] = memfd_create("in flight", 0);
		NEED(write(descriptors[0], &word, sizeof word) == sizeof word);
		return 1;
	case 1:
		NEED(pipe(pair) == 0 && write(pair[1], &word, sizeof word) == sizeof word && close(pair[1]) == 0);
		descriptors[0] = pair[0];
		return 1;
	case 2:
		NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 && pipe(inner) == 0);
		NEED(write(inner[1], &word, sizeof word) == sizeof word && close(inner[1]) == 0);
		post(pair[0], "inner", 5, inner, 1);
		NEED(close(pair[0]) == 0 && close(inner[0]) == 0);
		descriptors[0] = pair[1];
		return 1;
	default:
		NEED(pipe(descriptors) == 0);
		return 2;
	}
}

static void send_next(struct line *line) {
	char bytes[40];
	int descriptors[2];
	uint64_t number = line->sent++;
	int count = pack(number, descriptors);
	memset(bytes, text_of(number), sizeof bytes);
	post(line->ends[0], bytes, 1 + number % 40, descriptors, count);
	for (int i = 0; i < count; i++)
		NEED(close(descriptors[i]) == 0);
}

/* How many descriptors came; -1 when the message is another one. */
static int receive(int socket, char *bytes, size_t length, int descriptors[2], struct ucred *sender) {
	char control[CMSG_SPACE(2 * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
	struct iovec part = {bytes, length};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	int count = 0;
	if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != (ssize_t)length)
		return -1;
	for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
		size_t room = header->cmsg_len - CMSG_LEN(0);
		if (header->cmsg_type == SCM_RIGHTS)
			memcpy(descriptors, CMSG_DATA(header), room), count = room / sizeof(int);
		else
			memcpy(sender, CMSG_DATA(header), sizeof *sender);
	}
	return count;
}

static bool holds(uint64_t number, int descriptors[2]) {
	uint64_t word = 0;
	int inner[2] = {-1, -1}, from = descriptors[0];
	struct ucred nobody;
	char text[5];
	if (number % KINDS == 0)
		EXPECT_EQ(lseek(from, 0, SEEK_CUR), sizeof word);
	if (number % KINDS == 0)
		EXPECT_EQ(lseek(from, 0, SEEK_SET), 0);
	if (number % KINDS == 2) {
		EXPECT_EQ(receive(from, text, sizeof text, inner, &nobody), 1);
		close(from), from = inner[0];
	}
	if (number % KINDS == 3) {
		EXPECT_EQ(write(descriptors[1], &(uint64_t){mix(number)}, sizeof word), sizeof word);
		close(descriptors[1]);
	}
	EXPECT_EQ(read(from, &word, sizeof word), sizeof word);
	EXPECT_EQ(word, mix(number));
	EXPECT_EQ(read(from, &word, sizeof word), 0);
	close(from);
	return true;
}

static bool receive_next(struct line *line, pid_t from) {
	uint64_t number = line->received++;
	char bytes[40];
	struct ucred sender = {0};
	int descriptors[2] = {-1, -1}, expected = number % KINDS == 3 ? 2 : 1;
	EXPECT_EQ(receive(line->ends[1], bytes, 1 + number % 40, descriptors, &sender), expected);
	for (uint64_t i = 0; i <= number % 40; i++)
		EXPECT_EQ(bytes[i], text_of(number));
	EXPECT_EQ(sender.pid, from);
	EXPECT_EQ(sender.uid, 1000 + bytes[0] % 5);
	EXPECT_EQ(sender.gid, 77);
	return holds(number, descriptors);
}

/* Takes one from each line when it is told to, and says whether it was right. */
static void receive_forever(pid_t parent) {
	char good;
	while (recv(answers.ends[1], &good, 1, 0) == 1) {
		good = 1;
		for (int type = 0; type < 3; type++)
			good &= receive_next(&to_child[type], parent);
		NEED(send(answers.ends[1], &good, 1, 0) == 1);
	}
	_exit(0);
}

static bool check(void) {
	char good = 0;
	for (int type = 0; type < 3; type++) {
		if (!receive_next(&own[type], getpid()))
			return false;
		send_next(&own[type]);
	}
	EXPECT_EQ(send(answers.ends[0], "?", 1, 0), 1);
	EXPECT_EQ(recv(answers.ends[0], &good, 1, 0), 1);
	EXPECT_EQ(good, 1);
	for (int type = 0; type < 3; type++)
		send_next(&to_child[type]);
	return true;
}

static void spoil(void) { NEED(recv(own[1].ends[1], (char[1]){0}, 1, 0) == 1); }

static void make(struct line *line, int type) {
	NEED(socketpair(AF_UNIX, type, 0, line->ends) == 0);
	NEED(setsockopt(line->ends[1], SOL_SOCKET, SO_PASSCRED, &(int){1}, sizeof(int)) == 0);
	for (int i = 0; i < IN_FLIGHT; i++)
		send_next(line);
}

int main(void) {
	pid_t parent = getpid();
	signal(SIGPIPE, SIG_IGN);
	NEED(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, answers.ends) == 0);
	for (int type = 0; type < 3; type++)
		make(&own[type], types[type]), make(&to_child[type], types[type]);
	if (fork_child() == 0) {
		for (int type = 0; type < 3; type++)
			close(own[type].ends[0]), close(own[type].ends[1]), close(to_child[type].ends[0]);
		close(answers.ends[0]);
		receive_forever(parent);
	}
	for (int type = 0; type < 3; type++)
		close(to_child[type].ends[1]);
	close(answers.ends[1]);
	return prove(check, spoil);
}
