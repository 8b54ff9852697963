/* Writes all over its memory without pause, and verifies it all the while from a second thread.
 *
 *   writer [MIB]
 *
 * A page holds its own number, the generation (the sweep that wrote it) and words that follow from
 * both. Sweeps visit the pages in a scattered order. A page that was lost, swapped with another, torn
 * or is older than the sweep before the running one is found. */
#include "prove.h"

struct page {
	/* Odd while the page is being written, as in a seqlock. */
	_Atomic uint64_t sequence;
	_Atomic uint64_t number, generation;
	_Atomic uint64_t words[PAGE / 8 - 3];
};

static struct page *pages;
static size_t count;
static _Atomic uint64_t sweep = 1;
static atomic_long verified_pages;
static long verified_before;
static char reason[200];
static atomic_bool bad;

#define WORDS (PAGE / 8 - 3)

static void write_page(size_t number, uint64_t generation) {
	struct page *page = &pages[number];
	atomic_fetch_add(&page->sequence, 1);
	page->number = number;
	page->generation = generation;
	for (size_t i = 0; i < WORDS; i++)
		atomic_store_explicit(&page->words[i], mix(number ^ generation << 32) + i, memory_order_relaxed);
	atomic_fetch_add(&page->sequence, 1);
}

static void *write_forever(void *unused) {
	(void)unused;
	for (;; sweep++)
		for (size_t i = 0; i < count; i++)
			/* `count` is a power of two, so an odd stride visits every page. */
			write_page(i * 40503 % count, sweep);
	return NULL;
}

/* 0: being written now. */
static int verify_page(size_t number) {
	struct page *page = &pages[number];
	uint64_t oldest = sweep - 1, before = page->sequence;
	if (before & 1)
		return 0;
	uint64_t claimed = page->number, generation = page->generation, wrong = 0;
	for (size_t i = 0; i < WORDS; i++) {
		uint64_t word = atomic_load_explicit(&page->words[i], memory_order_relaxed);
		wrong |= word ^ (mix(number ^ generation << 32) + i);
	}
	atomic_thread_fence(memory_order_acquire);
	if (page->sequence != before)
		return 0;
	if (claimed == number && !wrong && generation >= oldest && generation <= sweep)
		return 1;
	snprintf(reason, sizeof reason, "page %zu says %lu, generation %lu in sweep %lu%s", number, claimed,
		generation, (unsigned long)sweep, wrong ? ", words are wrong" : "");
	return -1;
}

static void *verify_forever(void *unused) {
	(void)unused;
	for (size_t number = 0;; number = (number + 1) % count) {
		int result = verify_page(number);
		if (result < 0)
			bad = true;
		verified_pages += result > 0;
	}
	return NULL;
}

static bool check(void) {
	EXPECT(!bad, "%s", reason);
	/* A thread that no longer runs proves nothing. Much slower than a loaded machine. */
	static int idle;
	long verified = verified_pages;
	idle = verified == verified_before ? idle + 1 : 0;
	verified_before = verified;
	EXPECT(idle < 2400, "no page was verified for two minutes");
	return true;
}

/* Until it is noticed: a sweep that comes by repairs what was spoilt. */
static void spoil(void) {
	while (!bad)
		for (size_t i = 0; i < count; i++)
			pages[i].words[5]++;
}

int main(int argc, char **argv) {
	size_t mib = argc > 1 ? strtoul(argv[1], NULL, 10) : 8;
	for (count = 256; count * 2 * PAGE <= mib << 20; count *= 2)
		;
	pages = map_anonymous(count * PAGE, MAP_PRIVATE);
	for (size_t number = 0; number < count; number++)
		write_page(number, 0);
	pthread_t writer, verifier;
	NEED(pthread_create(&writer, NULL, write_forever, NULL) == 0);
	NEED(pthread_create(&verifier, NULL, verify_forever, NULL) == 0);
	return prove(check, spoil);
}
