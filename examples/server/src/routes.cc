// The handlers: edit any of them while the server runs, then `scons hotpatch`.
// main.cc has kept pointers to them in its map since the server started.
#include <sstream>

#include "server.h"

static thread_local long served_by_this_thread = 0;

static std::string hello(Connection &, const Request &request)
{
  return "hello " + (request.argument.empty() ? "world" : request.argument);
}

static std::string count(Connection &connection, const Request &)
{
  std::ostringstream out;
  out << "connection " << connection.number << " request " << connection.requests << " total " << total_requests.load();
  return out.str();
}

static std::string square(Connection &, const Request &request)
{
  std::istringstream in(request.argument);
  long number = 0;
  if (!(in >> number))
    throw BadRequest("square needs a number");
  return std::to_string(number * number);
}

static std::string thread(Connection &, const Request &)
{
  return "this thread served " + std::to_string(++served_by_this_thread);
}

std::map<std::string, Handler> make_routes()
{
  return {{"/hello", hello}, {"/count", count}, {"/square", square}, {"/thread", thread}};
}

Request parse(const std::string &line)
{
  std::istringstream in(line);
  std::string method;
  Request request;
  in >> method >> request.path >> request.argument;
  if (method != "GET")
    throw BadRequest("only GET is known here");
  if (request.path.empty() || request.path[0] != '/')
    throw BadRequest("a path begins with a slash");
  return request;
}
