/* Memory, and how long a page of it lets the program wait that comes after the program.
 *
 *   memory MIB noise|objects
 *
 * Noise does not compress; objects are like a heap of small ones: an address, a length and eight bytes of
 * text, in turn. SIGUSR1 has a thread touch all pages in a scattered order, 1 ms apart; of each that was not
 * there yet (mincore(2)) a line says how long the touch took, and when it began by the wall clock, in
 * microseconds since 1970:
 *   {"waited_ns":N,"at_us":N}
 * SIGUSR2 has all of it verified: {"bad_word":N}, -1 when all is well. */
#include "prove.h"

static uint64_t *memory;
static size_t pages;
static bool is_noise;

#define WORDS (PAGE / 8)

static uint64_t word(uint64_t i) {
	static const uint64_t text = 0x206574617267696d; /* "migrate " */
	if (is_noise)
		return mix(i);
	uint64_t number = mix(i / 3);
	return i % 3 == 0 ? 0x560000000000 + (number & 0xfffff) * 16 : i % 3 == 1 ? number & 0x7f : text;
}

static long first_bad_word(void) {
	for (size_t i = 0; i < pages * WORDS; i++)
		if (memory[i] != word(i))
			return (long)i;
	return -1;
}

static void touch(size_t page) {
	unsigned char is_there = 0;
	const volatile uint64_t *first = memory + page * WORDS;
	NEED(mincore((void *)first, PAGE, &is_there) == 0);
	int64_t at = now_ns(CLOCK_REALTIME), began = now_ns(CLOCK_MONOTONIC);
	(void)*first;
	int64_t waited = now_ns(CLOCK_MONOTONIC) - began;
	if (!(is_there & 1))
		say("{\"waited_ns\":%ld,\"at_us\":%ld}", (long)waited, (long)(at / 1000));
}

static void *touch_all(void *unused) {
	(void)unused;
	prctl(PR_SET_TIMERSLACK, 1);
	for (size_t i = 0; i < pages; i++) {
		/* A prime stride: whole MiB of pages are no multiple of it. */
		touch(i * 40507 % pages);
		pause_ms(1);
	}
	return NULL;
}

static void obey(int request) {
	pthread_t toucher;
	if (request == SIGUSR1)
		NEED(pthread_create(&toucher, NULL, touch_all, NULL) == 0);
	if (request == SIGUSR2)
		say("{\"bad_word\":%ld}", first_bad_word());
}

int main(int argc, char **argv) {
	NEED(argc == 3 && (strcmp(argv[2], "noise") == 0 || strcmp(argv[2], "objects") == 0));
	is_noise = strcmp(argv[2], "noise") == 0;
	pages = strtoul(argv[1], NULL, 10) << 20 >> 12;
	sigset_t requests;
	sigemptyset(&requests);
	for (int i = 0; i < 3; i++)
		sigaddset(&requests, (int[]){SIGUSR1, SIGUSR2, SIGTERM}[i]);
	pthread_sigmask(SIG_BLOCK, &requests, NULL);
	memory = map_anonymous(pages * PAGE, MAP_PRIVATE);
	for (size_t i = 0; i < pages * WORDS; i++)
		memory[i] = word(i);
	if (getenv("PROVE_SPOIL"))
		memory[5]++;
	say("ready");
	for (;;) {
		siginfo_t request;
		int signal = sigwaitinfo(&requests, &request);
		if (signal == SIGTERM)
			break;
		obey(signal);
	}
	say("done");
	return 0;
}
