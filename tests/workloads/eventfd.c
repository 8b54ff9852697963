/* Event counters: a plain one with a count, a semaphore, and one that a child waits for. */
#include "prove.h"
#include <sys/eventfd.h>

static int plain, semaphore, ping, pong;

static bool check(void) {
	uint64_t value;
	EXPECT_EQ(read(plain, &value, 8), 8);
	EXPECT_EQ(value, 0x123456789);
	EXPECT_EQ(write(plain, &value, 8), 8);
	EXPECT_EQ(read(semaphore, &value, 8), 8);
	EXPECT_EQ(value, 1);
	EXPECT_EQ(write(semaphore, &value, 8), 8);
	EXPECT_EQ(fcntl(plain, F_GETFL), O_RDWR | O_NONBLOCK);
	EXPECT_EQ(fcntl(semaphore, F_GETFD), FD_CLOEXEC);
	value = 5;
	EXPECT_EQ(write(ping, &value, 8), 8);
	EXPECT_EQ(read(pong, &value, 8), 8);
	EXPECT_EQ(value, 6);
	return true;
}

static void spoil(void) { NEED(write(plain, &(uint64_t){1}, 8) == 8); }

static void answer_forever(void) {
	uint64_t value;
	while (read(ping, &value, 8) == 8 && ++value && write(pong, &value, 8) == 8)
		;
	_exit(0);
}

int main(void) {
	plain = eventfd(0, EFD_NONBLOCK);
	semaphore = eventfd(3, EFD_SEMAPHORE | EFD_CLOEXEC);
	ping = eventfd(0, 0), pong = eventfd(0, 0);
	NEED(plain >= 0 && semaphore >= 0 && ping >= 0 && pong >= 0);
	NEED(write(plain, &(uint64_t){0x123456789}, 8) == 8);
	if (fork_child() == 0)
		answer_forever();
	return prove(check, spoil);
}
