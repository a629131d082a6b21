// A line server on the loopback interface: "GET /hello Ada" is answered by "200 hello Ada".
// Several threads accept; each serves one connection at a time until the peer closes it.
// It ends when its standard input or whoever started it is gone, and after an hour in any case.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <thread>

#include "server.h"

std::atomic<long> total_requests{0};

static const int n_threads = 4;
static const int longest_run_s = 3600;

static const std::map<std::string, Handler> routes = make_routes();
static std::atomic<int> connections{0};

static std::string answer(Connection &connection, const std::string &line)
{
  connection.requests++;
  total_requests++;
  try {
    const Request request = parse(line);
    const auto route = routes.find(request.path);
    if (route == routes.end())
      return "404 nothing at " + request.path + "\n";
    return "200 " + route->second(connection, request) + "\n";
  } catch (const BadRequest &e) {
    return std::string("400 ") + e.what() + "\n";
  }
}

static bool send_all(int fd, const std::string &text)
{
  for (size_t sent = 0; sent < text.size();) {
    const ssize_t n = send(fd, text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
    if (n <= 0)
      return false;
    sent += static_cast<size_t>(n);
  }
  return true;
}

// One connection, from its first line to its end. Lines longer than 4,096 bytes end it.
static void serve(int fd)
{
  Connection connection{++connections};
  std::string pending;
  char chunk[512];

  for (ssize_t n; pending.size() < 4096 && (n = recv(fd, chunk, sizeof chunk, 0)) > 0;) {
    pending.append(chunk, static_cast<size_t>(n));
    for (size_t end; (end = pending.find('\n')) != std::string::npos; pending.erase(0, end + 1))
      if (!send_all(fd, answer(connection, pending.substr(0, end))))
        return;
  }
}

static void accept_loop(int listener)
{
  for (int fd; (fd = accept(listener, nullptr, nullptr)) >= 0; close(fd))
    serve(fd);
}

static int listen_on_loopback(sockaddr_in &address)
{
  socklen_t size = sizeof address;
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

  address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (fd < 0 || bind(fd, reinterpret_cast<sockaddr *>(&address), size) || listen(fd, 64) ||
      getsockname(fd, reinterpret_cast<sockaddr *>(&address), &size)) {
    perror("server: 127.0.0.1");
    exit(1);
  }
  return fd;
}

int main()
{
  const pid_t parent = getppid();
  sockaddr_in address;
  const int listener = listen_on_loopback(address);

  for (int i = 0; i < n_threads; i++)
    std::thread(accept_loop, listener).detach();
  printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
  fflush(stdout);

  pollfd input = {STDIN_FILENO, 0, 0};  // hang-ups are reported unasked
  for (int s = 0; s < longest_run_s && getppid() == parent; s++)
    if (poll(&input, 1, 1000) > 0)
      break;
  _exit(0);  // the detached threads still serve: no destructor may run under them
}
