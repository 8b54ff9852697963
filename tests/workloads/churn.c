/* Nothing stays: children and threads come and go, memory is mapped, moved, dropped, grown and unmapped. */
#include "prove.h"

#define PAGES 512
static atomic_long threads_run, children_run, shapes_made;
static atomic_bool bad;
static char reason[200];

static void fail(const char *what) {
	if (!atomic_exchange(&bad, true))
		snprintf(reason, sizeof reason, "%s (errno %d)", what, errno);
}

static void *short_thread(void *seed) {
	uint64_t words[64];
	fill(words, sizeof words, (uint64_t)seed);
	usleep(300);
	if (filled(words, sizeof words, (uint64_t)seed) != -1)
		fail("a thread's stack changed");
	return seed;
}

static void *make_threads(void *unused) {
	for (uint64_t seed = 1;; seed++) {
		pthread_t thread;
		void *result;
		if (pthread_create(&thread, NULL, short_thread, (void *)seed) || pthread_join(thread, &result))
			fail("a thread cannot be made");
		else if (result != (void *)seed)
			fail("a thread returned another's value");
		threads_run++;
	}
	return unused;
}

static void *make_children(void *unused) {
	uint64_t *memory = map_anonymous(16 * PAGE, MAP_PRIVATE);
	for (int code = 1;; code = code % 100 + 1) {
		int status = 0;
		fill(memory, 16 * PAGE, code);
		pid_t child = fork_child();
		if (child == 0)
			_exit(filled(memory, 16 * PAGE, code) == -1 && usleep(500) == 0 ? code : 0);
		if (waitpid(child, &status, 0) != child || status != code << 8)
			fail("a child ended otherwise");
		children_run++;
	}
	return unused;
}

/* Each step is something that a list of mappings or of sent pages may get wrong. */
static void shape(uint64_t seed) {
	char *memory = map_anonymous(PAGES * PAGE, MAP_PRIVATE);
	fill(memory, PAGES * PAGE, seed);
	madvise(memory + 64 * PAGE, 64 * PAGE, MADV_DONTNEED);
	munmap(memory + 256 * PAGE, 64 * PAGE);
	mprotect(memory + 32 * PAGE, PAGE, PROT_READ);
	usleep(200);
	for (int i = 0; i < 64 * PAGE; i += PAGE)
		if (memory[64 * PAGE + i])
			fail("a dropped page came back");
	if (filled(memory, 64 * PAGE, seed) != -1)
		fail("memory changed");
	char *moved = mremap(memory, 32 * PAGE, 128 * PAGE, MREMAP_MAYMOVE);
	if (moved == MAP_FAILED)
		return fail("mremap");
	usleep(200);
	if (filled(moved, 32 * PAGE, seed) != -1 || moved[33 * PAGE])
		fail("moved memory changed");
	munmap(moved, 128 * PAGE);
	/* Where the moved pages were, another thread's stack may stand by now. */
	munmap(memory + 32 * PAGE, 224 * PAGE);
	munmap(memory + 320 * PAGE, (PAGES - 320) * PAGE);
}

static void *make_shapes(void *unused) {
	for (uint64_t seed = 1;; seed++, shapes_made++) {
		shape(seed);
		/* Nothing else here uses the break: malloc is not called after the start. */
		char *top = sbrk(0);
		if (seed % 64 == 0 ? brk(top - 63 * PAGE) : sbrk(PAGE) == (void *)-1)
			fail("brk");
		else if (seed % 64)
			memset(top, 1, PAGE);
	}
	return unused;
}

static bool check(void) {
	static long before, idle;
	long done = threads_run && children_run ? threads_run + children_run + shapes_made : 0;
	EXPECT(!bad, "%s", reason);
	idle = done == before ? idle + 1 : 0, before = done;
	EXPECT(idle < 400, "nothing happens for 20 s");
	return true;
}

static void spoil(void) { fail("spoilt"); }

int main(void) {
	pthread_t threads[3];
	NEED(pthread_create(&threads[0], NULL, make_threads, NULL) == 0);
	NEED(pthread_create(&threads[1], NULL, make_children, NULL) == 0);
	NEED(pthread_create(&threads[2], NULL, make_shapes, NULL) == 0);
	return prove(check, spoil);
}
