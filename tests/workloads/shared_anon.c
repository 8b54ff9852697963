/* Anonymous shared memory between a parent and a child that write it in turns. */
#include "prove.h"

#define BYTES (4 << 20)
struct area {
	_Atomic long asked, answered;
	_Alignas(PAGE) char by_parent[BYTES], by_child[BYTES];
} *area;

static bool check(void) {
	fill(area->by_parent, BYTES, area->asked + 1);
	area->asked++;
	for (int i = 0; area->answered != area->asked; i++) {
		EXPECT(i < 20000, "the child does not answer");
		usleep(1000);
	}
	EXPECT_EQ(filled(area->by_child, BYTES, area->asked << 32), -1);
	return true;
}

/* The memory stays and is no longer shared: what an engine that forgets the sharing would make of it. */
static void spoil(void) {
	void *memory = mmap(area->by_child, BYTES, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	NEED(memory != MAP_FAILED);
}

static void answer_forever(void) {
	for (;; usleep(1000)) {
		long asked = area->asked;
		if (asked == area->answered)
			continue;
		bool good = filled(area->by_parent, BYTES, asked) == -1;
		fill(area->by_child, BYTES, good ? asked << 32 : -1);
		area->answered = asked;
	}
}

int main(void) {
	area = map_anonymous(sizeof *area, MAP_SHARED);
	if (fork_child() == 0)
		answer_forever();
	return prove(check, spoil);
}
