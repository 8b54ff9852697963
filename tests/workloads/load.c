/* A program that has much of something, for the benchmark: how long it stands still is in its heartbeat
 * (heart.h).
 *
 *   load [memory=MIB] [hot=MIB] [threads=N] [descriptors=N] [mappings=N] [processes=N]
 *
 * `hot` MiB at the beginning of the memory are written all over without pause; a page written is a unit of
 * work. A verification holds the writer meanwhile, and so knows the generation of every page. */
#include "heart.h"
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

#define WORDS (PAGE / 8)
static size_t memory_pages, hot_pages, threads, descriptors, mappings, processes;

/* Memory. */

static uint64_t *memory;
static uint64_t sweep = 1;
static size_t next_page;
static pthread_mutex_t writing = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool verifying;

static void write_page(size_t page, uint64_t generation) {
	uint64_t *words = memory + page * WORDS, seed = mix(page ^ generation << 32);
	for (size_t i = 0; i < WORDS; i++)
		words[i] = mix(seed + i);
}

static bool is_written(size_t page, uint64_t generation) {
	const uint64_t *words = memory + page * WORDS;
	uint64_t seed = mix(page ^ generation << 32);
	for (size_t i = 0; i < WORDS; i++)
		if (words[i] != mix(seed + i))
			return false;
	return true;
}

static void *write_forever(void *unused) {
	(void)unused;
	for (;;) {
		/* A mutex is not handed over in turn: who asks for it would wait for ever. */
		while (verifying)
			usleep(100);
		pthread_mutex_lock(&writing);
		for (int i = 0; i < 64; i++) {
			write_page(next_page, sweep);
			if (++next_page == hot_pages)
				next_page = 0, sweep++;
		}
		pthread_mutex_unlock(&writing);
		heart_work += 64;
	}
	return NULL;
}

static long verify_memory(void) {
	verifying = true;
	pthread_mutex_lock(&writing);
	long bad = -1;
	for (size_t page = 0; page < memory_pages && bad < 0; page++) {
		uint64_t generation = page >= hot_pages ? 0 : page < next_page ? sweep : sweep - 1;
		if (!is_written(page, generation))
			bad = (long)(page * WORDS);
	}
	pthread_mutex_unlock(&writing);
	verifying = false;
	return bad;
}

static void make_memory(void) {
	memory = map_anonymous(memory_pages * PAGE + PAGE, MAP_PRIVATE);
	for (size_t page = 0; page < memory_pages; page++)
		write_page(page, 0);
	if (getenv("PROVE_SPOIL"))
		memory[memory_pages * WORDS - 5]++;
	pthread_t writer;
	if (hot_pages > 0)
		NEED(pthread_create(&writer, NULL, write_forever, NULL) == 0);
}

/* Threads and processes: each counts, ten times a second. */

static atomic_long *counts;

static void *count_in_a_thread(void *own) {
	for (;; usleep(100000))
		++*(atomic_long *)own;
	return NULL;
}

static void make_threads(void) {
	pthread_attr_t small;
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 65536);
	pthread_t thread;
	for (size_t i = 0; i < threads; i++)
		NEED(pthread_create(&thread, &small, count_in_a_thread, &counts[i]) == 0);
}

/* A child of ours for every ten, and nine children of its own. */
static void make_processes(void) {
	atomic_long *own = counts + threads;
	for (size_t first = 0; first < processes; first += 10) {
		if (fork_child() != 0)
			continue;
		for (size_t i = first + 1; i < first + 10 && i < processes; i++)
			if (fork_child() == 0)
				count_in_a_thread(&own[i]);
		count_in_a_thread(&own[first]);
	}
}

/* All of them go on. */
static long verify_counts(void) {
	size_t all = threads + processes;
	long *before = malloc((all + 1) * sizeof *before), bad = -1;
	for (size_t i = 0; i < all; i++)
		before[i] = counts[i];
	for (size_t i = 0; i < all && bad < 0; i++) {
		int patience = 10000;
		while (counts[i] == before[i] && patience-- > 0)
			usleep(1000);
		if (patience < 0)
			bad = (long)i;
	}
	free(before);
	return bad;
}

/* Descriptors: a fifth each of files, eventfds, timerfds, ends of pipes and ends of socket pairs. */

static int *opened;

static int open_one(size_t number, const char *path) {
	int ends[2];
	struct itimerspec hour = {.it_value = {3600, 0}};
	int kind = number % 10, fd = -1;
	if (kind < 2) {
		NEED((fd = open(path, O_RDONLY)) >= 0 && lseek(fd, number, SEEK_SET) == (off_t)number);
	} else if (kind < 4) {
		NEED((fd = eventfd(number, 0)) >= 0);
	} else if (kind < 6) {
		NEED((fd = timerfd_create(CLOCK_MONOTONIC, 0)) >= 0 && timerfd_settime(fd, 0, &hour, NULL) == 0);
	} else if (kind % 2 == 1) {
		return opened[number - 1] + 1;
	} else {
		NEED((kind == 6 ? pipe(ends) : socketpair(AF_UNIX, SOCK_STREAM, 0, ends)) == 0);
		NEED(ends[1] == ends[0] + 1 && write(ends[1], &number, sizeof number) == sizeof number);
		fd = ends[0];
	}
	return fd;
}

static bool is_as_opened(size_t number) {
	int fd = opened[number], kind = number % 10, queued = 0;
	uint64_t count;
	struct itimerspec left;
	if (kind < 2)
		return lseek(fd, 0, SEEK_CUR) == (off_t)number;
	if (kind < 4)
		return read(fd, &count, sizeof count) == sizeof count && count == number
			&& write(fd, &count, sizeof count) == sizeof count;
	if (kind < 6)
		return timerfd_gettime(fd, &left) == 0 && left.it_value.tv_sec > 0;
	if (kind % 2 == 1)
		return fcntl(fd, F_GETFD) >= 0;
	return ioctl(fd, FIONREAD, &queued) == 0 && queued == (int)sizeof number;
}

static void make_descriptors(const char *path) {
	opened = calloc(descriptors + 1, sizeof *opened);
	for (size_t i = 0; i < descriptors; i++)
		opened[i] = open_one(i, path);
}

static long verify_descriptors(void) {
	for (size_t i = 0; i < descriptors; i++)
		if (!is_as_opened(i))
			return (long)i;
	return -1;
}

/* Mappings of a page each: every second one is read-only, so that none melts into its neighbour. */

static uint64_t *mapped;

static void make_mappings(void) {
	mapped = map_anonymous(mappings * PAGE + PAGE, MAP_PRIVATE);
	fill(mapped, mappings * PAGE, 7);
	for (size_t i = 1; i < mappings; i += 2)
		NEED(mprotect(mapped + i * WORDS, PAGE, PROT_READ) == 0);
}

static long verify(void) {
	long (*each[])(void) = {verify_memory, verify_counts, verify_descriptors};
	for (int i = 0; i < 3; i++) {
		long bad = each[i]();
		if (bad >= 0)
			return bad;
	}
	return filled(mapped, mappings * PAGE, 7);
}

static bool is(const char *argument, const char *name, size_t *value, size_t unit) {
	size_t length = strlen(name);
	if (strncmp(argument, name, length) != 0 || argument[length] != '=')
		return false;
	*value = strtoul(argument + length + 1, NULL, 10) * unit;
	return true;
}

int main(int argc, char **argv) {
	const size_t pages_a_mib = 256;
	memory_pages = pages_a_mib;
	for (int i = 1; i < argc; i++)
		NEED(is(argv[i], "memory", &memory_pages, pages_a_mib) || is(argv[i], "hot", &hot_pages, pages_a_mib)
			|| is(argv[i], "threads", &threads, 1) || is(argv[i], "descriptors", &descriptors, 1)
			|| is(argv[i], "mappings", &mappings, 1) || is(argv[i], "processes", &processes, 1));
	NEED(hot_pages <= memory_pages);
	heart_prepare(verify);
	counts = map_anonymous((threads + processes + 1) * sizeof *counts, MAP_SHARED);
	make_processes();
	make_descriptors(argv[0]);
	make_mappings();
	make_threads();
	make_memory();
	return heart_live();
}
