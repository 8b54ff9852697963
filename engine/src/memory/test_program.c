// The programs whose memory the tests track. The first argument says which; each prints
// "NAME HEX" lines and then "ready". "steps" does one command a line from stdin and answers "done HEX".
#define _GNU_SOURCE
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096ul
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif
#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif

static void say(const char *name, unsigned long value)
{
	printf("%s %lx\n", name, value);
	fflush(stdout);
}

static char *map(size_t pages, int protection, int flags, int fd)
{
	char *at = mmap(0, pages * PAGE, protection, flags, fd, 0);
	if (at == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	return at;
}

static char *anonymous(size_t pages)
{
	return map(pages, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

static void fill(char *at, size_t pages, int value)
{
	for (size_t page = 0; page < pages; page++)
		memset(at + page * PAGE, value, PAGE);
}

static char *file_of(const char *path, size_t pages, int flags, int unlinked)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (fd < 0 || ftruncate(fd, pages * PAGE) < 0) {
		perror(path);
		exit(1);
	}
	char *at = map(pages, PROT_READ | PROT_WRITE, flags, fd);
	char page[PAGE];
	memset(page, 0x5a, PAGE);
	for (size_t i = 0; i < pages; i++)
		if (write(fd, page, PAGE) != (ssize_t)PAGE)
			exit(1);
	if (unlinked)
		unlink(path);
	close(fd);
	return at;
}

static void regions(const char *directory)
{
	char path[4096];
	char *none = anonymous(4);
	fill(none, 2, 0x5a);
	mprotect(none, 4 * PAGE, PROT_NONE);
	say("none", (uintptr_t)none);

	char *hole = anonymous(3);
	fill(hole, 3, 0x5a);
	munmap(hole + PAGE, PAGE);
	say("hole", (uintptr_t)hole);

	char *large = anonymous(1024);
	fill(large, 1024, 0x5a);
	say("large", (uintptr_t)large);

	char *guarded = anonymous(16);
	fill(guarded, 16, 0x5a);
	mprotect(guarded + 15 * PAGE, PAGE, PROT_NONE); // keeps neighbours from merging
	int has_guards = madvise(guarded + PAGE, 2 * PAGE, MADV_GUARD_INSTALL) == 0;
	say("guarded", (uintptr_t)guarded);
	say("has_guards", has_guards);

	char *shared = map(4, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1);
	fill(shared, 2, 0x5a);
	say("shared", (uintptr_t)shared);

	int memfd = memfd_create("a name", MFD_CLOEXEC);
	if (ftruncate(memfd, 4 * PAGE) < 0)
		exit(1);
	char *of_memfd = map(4, PROT_READ | PROT_WRITE, MAP_SHARED, memfd);
	fill(of_memfd, 1, 0x5a);
	say("memfd", (uintptr_t)of_memfd);

	int id = shmget(IPC_PRIVATE, 4 * PAGE, IPC_CREAT | 0600);
	char *sysv = shmat(id, 0, 0);
	shmctl(id, IPC_RMID, 0);
	fill(sysv, 1, 0x5a);
	say("sysv", (uintptr_t)sysv);

	snprintf(path, sizeof path, "%s/unlinked-%d", directory, getpid());
	say("unlinked", (uintptr_t)file_of(path, 4, MAP_PRIVATE, 1));

	snprintf(path, sizeof path, "/test-program-%d", getpid());
	int shm = shm_open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
	if (shm < 0 || ftruncate(shm, 4 * PAGE) < 0)
		exit(1);
	char *of_shm = map(4, PROT_READ | PROT_WRITE, MAP_SHARED, shm);
	fill(of_shm, 1, 0x5a);
	say("shm", (uintptr_t)of_shm);
	printf("ready\n");
	fflush(stdout);
	char line[16];
	while (fgets(line, sizeof line, stdin)) // until our parent closes it
		;
	shm_unlink(path);
}

static void __attribute__((noinline)) deep(int pages)
{
	volatile char frame[PAGE];
	frame[0] = (char)pages;
	if (pages > 1)
		deep(pages - 1);
	frame[1] = 1;
}

static char *region, *moved, *of_file, *thp, *tables, *fresh;
static size_t region_pages = 64;

static uintptr_t step(const char *command, const char *directory, char **arguments)
{
	if (!strcmp(command, "idle"))
		return 0;
	if (!strcmp(command, "clock")) { // the vdso reads the kernel's pages before it
		struct timespec now;
		return (uintptr_t)clock_gettime(CLOCK_MONOTONIC, &now);
	}
	if (!strcmp(command, "write")) { // three pages of the region
		region[5 * PAGE] = 7, region[6 * PAGE] = 7, region[40 * PAGE + 4095] = 7;
		return (uintptr_t)region;
	}
	if (!strcmp(command, "write_again")) {
		region[5 * PAGE + 1] = 8, region[40 * PAGE + 1] = 8;
		return (uintptr_t)region;
	}
	if (!strcmp(command, "read_into")) { // the kernel writes
		int fd = open("/dev/zero", O_RDONLY);
		if (read(fd, region + 10 * PAGE, 2 * PAGE) != 2 * PAGE)
			exit(1);
		close(fd);
		return (uintptr_t)region;
	}
	if (!strcmp(command, "map")) {
		fresh = anonymous(8);
		fill(fresh, 3, 0x11);
		return (uintptr_t)fresh;
	}
	if (!strcmp(command, "map_over")) { // a new mapping in the place of sent pages
		mmap(region + 16 * PAGE, 4 * PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		region[17 * PAGE] = 9;
		return (uintptr_t)(region + 16 * PAGE);
	}
	if (!strcmp(command, "unmap")) {
		munmap(region + 16 * PAGE, 4 * PAGE);
		return (uintptr_t)(region + 16 * PAGE);
	}
	if (!strcmp(command, "move")) { // the first half goes elsewhere
		moved = mremap(region, 32 * PAGE, 32 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, moved);
		return (uintptr_t)moved;
	}
	if (!strcmp(command, "move_back")) {
		return mremap(moved, 32 * PAGE, 32 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, region) == region
			       ? (uintptr_t)region : 0;
	}
	if (!strcmp(command, "reserve")) { // the first half is used, the other has no access yet
		fresh = anonymous(32);
		mprotect(fresh + 16 * PAGE, 16 * PAGE, PROT_NONE);
		fill(fresh, 16, 0x12);
		return (uintptr_t)fresh;
	}
	if (!strcmp(command, "move_reserved")) { // all of it is used now, and moves as one
		mprotect(fresh + 16 * PAGE, 16 * PAGE, PROT_READ | PROT_WRITE);
		char *at = mremap(fresh, 32 * PAGE, 64 * PAGE, MREMAP_MAYMOVE);
		return at == MAP_FAILED ? 0 : (uintptr_t)at;
	}
	if (!strcmp(command, "split")) {
		mprotect(region + 8 * PAGE, 8 * PAGE, PROT_READ);
		region[30 * PAGE] = 3;
		return (uintptr_t)region;
	}
	if (!strcmp(command, "unsplit")) { // read-only becomes writable, and is written
		mprotect(region + 8 * PAGE, 8 * PAGE, PROT_READ | PROT_WRITE);
		region[9 * PAGE] = 3;
		return (uintptr_t)region;
	}
	if (!strcmp(command, "drop")) {
		madvise(region + 20 * PAGE, 4 * PAGE, MADV_DONTNEED);
		return (uintptr_t)(region + 20 * PAGE);
	}
	if (!strcmp(command, "drop_and_read")) {
		madvise(region + 20 * PAGE, 4 * PAGE, MADV_DONTNEED);
		return (uintptr_t)(region + 20 * PAGE) + *(volatile char *)(region + 21 * PAGE);
	}
	if (!strcmp(command, "stack")) {
		deep(200);
		return 0;
	}
	if (!strcmp(command, "brk")) {
		char *at = sbrk(16 * PAGE);
		fill(at, 16, 0x22);
		return (uintptr_t)at;
	}
	if (!strcmp(command, "fork")) { // the child writes all over its copies, then we write ours
		int pid = fork();
		if (!pid) {
			fill(region, region_pages, 0x33);
			_exit(0);
		}
		region[50 * PAGE] = 8;
		waitpid(pid, 0, 0);
		return (uintptr_t)region;
	}
	if (!strcmp(command, "thp")) {
		thp[3 * PAGE] = 4;
		thp[700 * PAGE] = 4;
		return (uintptr_t)thp;
	}
	if (!strcmp(command, "thp_drop")) { // whole page tables go
		madvise(thp, 4 << 20, MADV_DONTNEED);
		return (uintptr_t)thp;
	}
	if (!strcmp(command, "thp_map_over")) {
		mmap(thp, 4 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		return (uintptr_t)thp;
	}
	if (!strcmp(command, "table_drop")) { // since Linux 6.14 the page table goes as well
		madvise(tables, 2 << 20, MADV_DONTNEED);
		return (uintptr_t)tables;
	}
	if (!strcmp(command, "table_map_over")) {
		mmap(tables, 2 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		return (uintptr_t)tables;
	}
	if (!strcmp(command, "table_write")) { // a new table, for one page
		tables[9 * PAGE] = 5;
		return (uintptr_t)tables;
	}
	if (!strcmp(command, "table_drop_first")) {
		madvise(tables, PAGE, MADV_DONTNEED);
		return (uintptr_t)tables;
	}
	if (!strcmp(command, "table_drop_inner")) {
		madvise(tables + 700 * PAGE, PAGE, MADV_DONTNEED);
		return (uintptr_t)(tables + 700 * PAGE);
	}
	if (!strcmp(command, "file_write")) {
		of_file[2 * PAGE] = 1, of_file[3 * PAGE] = 1;
		return (uintptr_t)of_file;
	}
	if (!strcmp(command, "file_zero")) {
		memset(of_file + 3 * PAGE, 0, PAGE);
		return (uintptr_t)of_file;
	}
	if (!strcmp(command, "file_drop")) { // the written copies go, the file shows again
		madvise(of_file, 8 * PAGE, MADV_DONTNEED);
		return (uintptr_t)of_file;
	}
	if (!strcmp(command, "droppable")) {
		char *at = mmap(0, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);
		if (at == MAP_FAILED)
			return 0;
		fill(at, 2, 0x44);
		return (uintptr_t)at;
	}
	if (!strcmp(command, "guard"))
		return madvise(region + 24 * PAGE, 2 * PAGE, MADV_GUARD_INSTALL) ? 0 : (uintptr_t)(region + 24 * PAGE);
	if (!strcmp(command, "exec")) {
		execv("/proc/self/exe", arguments);
		exit(1);
	}
	(void)directory;
	exit(2);
}

// So many times 2 MiB, beginning at a page table of their own.
static char *aligned(size_t tables)
{
	char *at = anonymous((tables + 1) * 512);
	return (char *)(((uintptr_t)at + (2 << 20) - 1) & ~((2ul << 20) - 1));
}

static void steps(const char *directory, char **arguments)
{
	char path[4096], line[64];
	region = anonymous(region_pages);
	fill(region, region_pages, 0x5a);
	moved = anonymous(32);
	munmap(moved, 32 * PAGE);
	snprintf(path, sizeof path, "%s/file-%d", directory, getpid());
	of_file = file_of(path, 8, MAP_PRIVATE, 0);
	thp = aligned(3);
	madvise(thp, 4 << 20, MADV_HUGEPAGE);
	fill(thp, 1024, 0x66);
	tables = aligned(2);
	madvise(tables, 4 << 20, MADV_NOHUGEPAGE);
	fill(tables, 1024, 0x67);
	// Reserved, and never touched but for one page.
	char *sparse = map(1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	madvise(sparse, (1ul << 20) * PAGE, MADV_NOHUGEPAGE);
	sparse[PAGE << 19] = 1;
	say("region", (uintptr_t)region);
	printf("ready\n");
	fflush(stdout);
	while (fgets(line, sizeof line, stdin)) {
		line[strcspn(line, "\n")] = 0;
		say("done", step(line, directory, arguments));
	}
	unlink(path);
}

// --- everything at once ---

static uint64_t seed;

static uint64_t next(void)
{
	seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
	return seed;
}

#define SLOTS 12
#define SLOT_PAGES 512ul
static char *arena; // a range in which mappings come and go, so that addresses meet again
static int storm_file;

static char *slot(void)
{
	return arena + next() % SLOTS * SLOT_PAGES * PAGE;
}

static void remap_slot(char *at)
{
	int is_file = next() % 4 == 0;
	int flags = MAP_PRIVATE | MAP_FIXED | (is_file ? 0 : MAP_ANONYMOUS);
	mmap(at, SLOT_PAGES * PAGE, PROT_READ | PROT_WRITE, flags, is_file ? storm_file : -1, 0);
	if (next() % 3 == 0)
		madvise(at, SLOT_PAGES * PAGE, MADV_HUGEPAGE);
}

static void act(void)
{
	char *at = slot();
	size_t first = next() % SLOT_PAGES, count = 1 + next() % 64;
	if (first + count > SLOT_PAGES)
		count = SLOT_PAGES - first;
	char *part = at + first * PAGE;
	size_t bytes = count * PAGE;
	switch (next() % 24) {
	case 0:
		remap_slot(at);
		break;
	case 1:
		munmap(at, SLOT_PAGES * PAGE);
		remap_slot(at);
		break;
	case 2: { // swaps a whole slot's content with another address
		char *other = slot();
		if (other != at && mremap(at, SLOT_PAGES * PAGE, SLOT_PAGES * PAGE,
					 MREMAP_MAYMOVE | MREMAP_FIXED, other) == other)
			remap_slot(at);
		break;
	}
	case 3:
	case 4:
	case 5:
		madvise(part, bytes, MADV_DONTNEED);
		if (next() % 2)
			(void)*(volatile char *)part;
		break;
	case 6:
		mprotect(part, bytes, PROT_READ);
		(void)*(volatile char *)part;
		mprotect(part, bytes, PROT_READ | PROT_WRITE);
		break;
	case 7: {
		int pid = next() % 8 ? -1 : fork();
		if (!pid) {
			for (size_t i = 0; i < count; i++)
				part[i * PAGE] = 1;
			_exit(0);
		}
		if (pid > 0)
			waitpid(pid, 0, 0);
		break;
	}
	case 8:
		memset(part, 0, bytes);
		break;
	case 10: // with its page table
		madvise(at, SLOT_PAGES * PAGE, MADV_DONTNEED);
		break;
	case 9: // leave some of it behind without access
		mprotect(part, PAGE, PROT_NONE);
		mprotect(part, PAGE, PROT_READ | PROT_WRITE);
		break;
	default:
		for (size_t i = 0; i < count; i++)
			*(uint64_t *)(part + i * PAGE + next() % 512 * 8) = next();
	}
}

static void *heap_thread(void *unused)
{
	(void)unused;
	for (;;) {
		char *block = malloc(200000);
		memset(block, 0x77, 200000);
		free(block);
		usleep(500);
	}
	return 0;
}

static void storm(const char *directory)
{
	char path[4096];
	snprintf(path, sizeof path, "%s/storm-%d", directory, getpid());
	file_of(path, SLOT_PAGES, MAP_PRIVATE, 0);
	storm_file = open(path, O_RDWR);
	unlink(path); // nothing is left behind however we end; the pages are a file's all the same
	arena = aligned(SLOTS); // a slot is a page table
	for (int i = 0; i < SLOTS; i++)
		remap_slot(arena + i * SLOT_PAGES * PAGE);
	// The heap grows and shrinks, but takes no mapping of its own: that could land where the
	// other thread is about to put one. A larger threshold than half an arena is refused.
	if (!mallopt(M_MMAP_THRESHOLD, 32 << 20) || !mallopt(M_TRIM_THRESHOLD, 0))
		exit(1);
	pthread_t thread;
	pthread_create(&thread, 0, heap_thread, 0);
	printf("ready\n");
	fflush(stdout);
	for (;;) {
		act();
		if (next() % 64 == 0)
			usleep(next() % 200);
	}
}

int main(int count, char **arguments)
{
	if (count < 4)
		return 2;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(120); // whatever happens to the test
	seed = strtoul(arguments[3], 0, 10) * 2654435761u + 88172645463325252ul;
	if (!strcmp(arguments[1], "regions"))
		regions(arguments[2]);
	else if (!strcmp(arguments[1], "steps"))
		steps(arguments[2], arguments);
	else
		storm(arguments[2]);
	return 0;
}
