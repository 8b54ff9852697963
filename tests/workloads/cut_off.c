/* A server whose connection does not move: it has to find it reset, once, and then at its end. */
#include "prove.h"
#include <arpa/inet.h>
#include <sys/socket.h>

static int listener, connection = -1;
static bool was_reset;

static bool is_over(void) {
	EXPECT_EQ(recv(connection, (char[1]){0}, 1, MSG_DONTWAIT), 0);
	EXPECT_EQ(send(connection, "x", 1, MSG_NOSIGNAL), -1);
	EXPECT_EQ(errno, EPIPE);
	return true;
}

static bool check(void) {
	if (connection < 0)
		connection = accept(listener, NULL, NULL);
	if (connection >= 0 && !was_reset) {
		EXPECT_EQ(recv(connection, (char[1]){0}, 1, MSG_DONTWAIT), -1);
		was_reset = errno == ECONNRESET;
		EXPECT(was_reset || errno == EAGAIN, "errno %d", errno);
	} else if (was_reset && !is_over())
		return false;
	EXPECT(!prove_last || was_reset, "the connection goes on");
	return true;
}

static void spoil(void) { connection = open("/dev/null", O_RDONLY); }

int main(void) {
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(7000)};
	listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	NEED(bind(listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(listener, 1) == 0);
	return prove(check, spoil);
}
