/* An epoll set over several kinds, with every trigger mode, and a set within a set. */
#include "prove.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>

static int set, outer, level, edge, oneshot, removed;

static void add(int to, int descriptor, uint32_t events, uint64_t data) {
	struct epoll_event event = {.events = events, .data.u64 = data};
	NEED(epoll_ctl(to, EPOLL_CTL_ADD, descriptor, &event) == 0);
}

/* The one event of `descriptor` after it was made ready; 0 when there is none. */
static uint64_t trigger(int descriptor) {
	struct epoll_event events[8];
	uint64_t count = 1;
	NEED(write(descriptor, &count, 8) == 8);
	int found = epoll_wait(set, events, 8, 0);
	NEED(read(descriptor, &count, 8) == 8);
	return found == 1 ? events[0].data.u64 : (uint64_t)found;
}

static bool check(void) {
	struct epoll_event events[8], rearm = {.events = EPOLLIN | EPOLLONESHOT, .data.u64 = ~0ULL};
	EXPECT_EQ(epoll_wait(set, events, 8, 0), 0);
	EXPECT_EQ(trigger(level), 0x1111222233334444);
	EXPECT_EQ(trigger(edge), 0x5555);
	EXPECT_EQ(trigger(removed), 0);
	EXPECT_EQ(trigger(oneshot), ~0ULL);
	/* Disarmed now, and it must stay so until it is armed again. */
	EXPECT_EQ(trigger(oneshot), 0);
	EXPECT_EQ(epoll_ctl(set, EPOLL_CTL_MOD, oneshot, &rearm), 0);
	EXPECT_EQ(write(level, &(uint64_t){1}, 8), 8);
	EXPECT_EQ(epoll_wait(outer, events, 8, 0), 1);
	EXPECT_EQ(events[0].data.u64, 77);
	EXPECT_EQ(read(level, &(uint64_t){0}, 8), 8);
	return true;
}

static void spoil(void) { NEED(epoll_ctl(set, EPOLL_CTL_DEL, edge, NULL) == 0); }

int main(void) {
	set = epoll_create1(EPOLL_CLOEXEC), outer = epoll_create1(0);
	level = eventfd(0, 0), edge = eventfd(0, 0), oneshot = eventfd(0, 0), removed = eventfd(0, 0);
	NEED(set >= 0 && outer >= 0 && removed >= 0);
	add(set, level, EPOLLIN, 0x1111222233334444);
	add(set, edge, EPOLLIN | EPOLLET, 0x5555);
	add(set, oneshot, EPOLLIN | EPOLLONESHOT, ~0ULL);
	add(set, removed, EPOLLIN, 0x9999);
	NEED(epoll_ctl(set, EPOLL_CTL_DEL, removed, NULL) == 0);
	add(outer, set, EPOLLIN, 77);
	return prove(check, spoil);
}
