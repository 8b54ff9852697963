/* Pipes with bytes in them: a stream that is always half full, one in packet mode, one at a child. */
#include "prove.h"

static int stream[2], packets[2], to_child[2], from_child[2];
static unsigned char next_in, next_out;

static void put(int n) {
	unsigned char bytes[64];
	for (int i = 0; i < n; i++)
		bytes[i] = next_in++;
	NEED(write(stream[1], bytes, n) == n);
}

static bool check_stream(void) {
	unsigned char bytes[64];
	int queued = 0;
	EXPECT_EQ(ioctl(stream[0], FIONREAD, &queued), 0);
	EXPECT_EQ(queued, 3000);
	EXPECT_EQ(fcntl(stream[0], F_GETPIPE_SZ), 131072);
	EXPECT_EQ(fcntl(stream[0], F_GETFL), O_RDONLY | O_NONBLOCK);
	EXPECT_EQ(read(stream[0], bytes, 60), 60);
	for (int i = 0; i < 60; i++)
		EXPECT_EQ(bytes[i], next_out++);
	put(60);
	return true;
}

/* Sizes 10, 900 and 4096 go round. A packet that was glued to another has another length. */
static bool check_packets(void) {
	static char packet[PAGE];
	static int turn;
	int sizes[] = {10, 900, 4096}, expected = sizes[turn++ % 3];
	EXPECT_EQ(read(packets[0], packet, sizeof packet), expected);
	EXPECT_EQ(write(packets[1], packet, expected), expected);
	return true;
}

static bool check(void) {
	char echo = 'x';
	EXPECT_EQ(write(to_child[1], &echo, 1), 1);
	EXPECT_EQ(read(from_child[0], &echo, 1), 1);
	EXPECT_EQ(echo, 'y');
	return check_stream() && check_packets();
}

static void spoil(void) { put(1); }

static void answer_forever(void) {
	char byte;
	while (read(to_child[0], &byte, 1) == 1 && ++byte && write(from_child[1], &byte, 1) == 1)
		;
	_exit(0);
}

int main(void) {
	static char packet[PAGE];
	NEED(pipe2(stream, O_NONBLOCK) == 0 && pipe2(packets, O_DIRECT) == 0);
	NEED(fcntl(stream[0], F_SETPIPE_SZ, 131072) == 131072);
	for (int i = 0; i < 50; i++)
		put(60);
	NEED(write(packets[1], packet, 10) == 10 && write(packets[1], packet, 900) == 900);
	NEED(write(packets[1], packet, 4096) == 4096);
	NEED(pipe(to_child) == 0 && pipe(from_child) == 0);
	if (fork_child() == 0)
		answer_forever();
	return prove(check, spoil);
}
