/* A debugger: traces PID until it is ended.  tracer PID */
#include "prove.h"
#include <sys/ptrace.h>

int main(int argc, char **argv) {
	NEED(argc == 2 && ptrace(PTRACE_SEIZE, atoi(argv[1]), NULL, NULL) == 0);
	say("ready");
	for (;;)
		pause();
}
