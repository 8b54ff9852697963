/* How long a thread that hardly ever runs waits for a processor beside two groups of tasks whose threads wake one
 * another.
 *
 *   cc -O2 -pthread -o groups groups.c && ./groups [PAIRS] [apart]
 *
 * Each group is a session (sched_autogroup_enabled must be 1) with so many pairs of threads: one sends a datagram
 * every 15 us, the other reads it. With `apart` each group keeps to one processor. Says the longest wait of 3 s. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int64_t now_ns(void) {
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void work_us(int us) {
	for (int64_t end = now_ns() + us * 1000LL; now_ns() < end;)
		;
}

static void *sends(void *ends) {
	char datagram[1000] = {0};
	for (;;) {
		work_us(15);
		send(*(int *)ends, datagram, sizeof datagram, 0);
	}
	return NULL;
}

static void *reads(void *ends) {
	char datagram[1000];
	for (;;) {
		recv(((int *)ends)[1], datagram, sizeof datagram, 0);
		work_us(3);
	}
	return NULL;
}

static pid_t group(int pairs, int processor) {
	pid_t pid = fork();
	if (pid != 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setsid();
	cpu_set_t one;
	CPU_ZERO(&one);
	CPU_SET(processor, &one);
	if (processor >= 0)
		sched_setaffinity(0, sizeof one, &one);
	for (int i = 0; i < pairs; i++) {
		int *ends = malloc(2 * sizeof *ends);
		pthread_t thread;
		socketpair(AF_UNIX, SOCK_DGRAM, 0, ends);
		pthread_create(&thread, NULL, sends, ends);
		pthread_create(&thread, NULL, reads, ends);
	}
	for (;;)
		pause();
}

int main(int count, char **words) {
	int pairs = count > 1 ? atoi(words[1]) : 4, apart = count > 2 && strcmp(words[2], "apart") == 0;
	pid_t groups[2] = {group(pairs, apart ? 0 : -1), group(pairs, apart ? 1 : -1)};
	sleep(1);
	prctl(PR_SET_TIMERSLACK, 1);
	int64_t last = now_ns(), longest = 0, end = last + 3000000000LL;
	while (last < end) {
		nanosleep(&(struct timespec){0, 200000}, NULL);
		int64_t now = now_ns();
		longest = now - last > longest ? now - last : longest;
		last = now;
	}
	printf("%.1f ms\n", longest / 1e6);
	kill(groups[0], SIGKILL);
	kill(groups[1], SIGKILL);
	return 0;
}
