/* What all workloads share: a program that makes an object, says "ready", and then proves again and
 * again that the object is still what it made.
 *
 * Standard output is a regular file and gets one line per check: "ok N" or "BAD reason". SIGTERM asks
 * for a last check; "done" and status 0 mean that every check was good. With PROVE_SPOIL in the
 * environment the workload breaks its own object after a while, which must end in "BAD": so that a
 * check that cannot fail is found out. */
#pragma once
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096

/* Set by SIGTERM, at any moment. */
static volatile sig_atomic_t prove_asked;
/* Whether this check is the last one; it does not change in the middle of a check. */
static bool prove_last;

static void prove_on_term(int signal) {
	(void)signal;
	prove_asked = 1;
}

static inline void say(const char *format, ...) {
	char line[512];
	va_list arguments;
	va_start(arguments, format);
	int length = vsnprintf(line, sizeof line - 1, format, arguments);
	va_end(arguments);
	if (length > (int)sizeof line - 2)
		length = sizeof line - 2;
	line[length] = '\n';
	if (write(STDOUT_FILENO, line, length + 1) != length + 1)
		_exit(3);
}

/* Ends a check (a function that returns bool) with a reason. */
#define BAD(...) do { say("BAD " __VA_ARGS__); return false; } while (0)
#define EXPECT(condition, ...) do { if (!(condition)) BAD(#condition ": " __VA_ARGS__); } while (0)
/* For a number: says what it is and what it should be. */
#define EXPECT_EQ(actual, expected) do { long long a_ = (long long)(actual), e_ = (long long)(expected); \
	if (a_ != e_) BAD("%s is %lld, not %lld (errno %d)", #actual, a_, e_, errno); } while (0)
/* For making the object: what fails here is the machine, not the move. */
#define NEED(condition) do { if (!(condition)) { \
	say("UNFIT %s:%d %s: %s", __FILE__, __LINE__, #condition, strerror(errno)); exit(2); } } while (0)

static inline void pause_ms(int ms) {
	struct timespec left = {ms / 1000, ms % 1000 * 1000000L};
	while (clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left) == EINTR && !prove_last)
		;
}

static inline int64_t now_ns(clockid_t clock) {
	struct timespec now;
	clock_gettime(clock, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* A number that looks random and follows from `seed`: memory that no compressor makes small. */
static inline uint64_t mix(uint64_t seed) {
	seed += 0x9e3779b97f4a7c15;
	seed = (seed ^ seed >> 30) * 0xbf58476d1ce4e5b9;
	seed = (seed ^ seed >> 27) * 0x94d049bb133111eb;
	return seed ^ seed >> 31;
}

static inline void fill(void *memory, size_t bytes, uint64_t seed) {
	for (size_t i = 0; i < bytes / 8; i++)
		((volatile uint64_t *)memory)[i] = mix(seed + i);
}

/* The index of the first wrong word, or -1. */
static inline long filled(const void *memory, size_t bytes, uint64_t seed) {
	for (size_t i = 0; i < bytes / 8; i++)
		if (((const volatile uint64_t *)memory)[i] != mix(seed + i))
			return (long)i;
	return -1;
}

static inline void *map_anonymous(size_t bytes, int flags) {
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
	NEED(memory != MAP_FAILED);
	return memory;
}

/* A helper of the workload dies with it: a killed test leaves nothing. */
static inline pid_t fork_child(void) {
	pid_t parent = getpid(), child = fork();
	NEED(child >= 0);
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(4);
	}
	return child;
}

/* The main loop. Returns the exit status. */
static inline int prove(bool (*check)(void), void (*spoil)(void)) {
	struct sigaction on_term = {.sa_handler = prove_on_term};
	sigaction(SIGTERM, &on_term, NULL);
	bool spoils = getenv("PROVE_SPOIL") != NULL;
	say("ready");
	for (long checks = 1;; checks++) {
		prove_last = prove_asked;
		if (!check())
			return 1;
		say("ok %ld", checks);
		if (prove_last)
			break;
		if (spoils && checks == 3)
			spoil();
		pause_ms(50);
	}
	say("done");
	return 0;
}
