// What the network side (main.cc) and the handlers (routes.cc) share.
#pragma once

#include <atomic>
#include <map>
#include <stdexcept>
#include <string>

struct Connection {
  int number;         // counted from 1, over all threads
  long requests = 0;  // taken from this connection so far
};

struct Request {
  std::string path;
  std::string argument;
};

struct BadRequest : std::runtime_error {
  using std::runtime_error::runtime_error;
};

using Handler = std::string (*)(Connection &, const Request &);

extern std::atomic<long> total_requests;

// routes.cc. Handlers may throw BadRequest.
std::map<std::string, Handler> make_routes();

// routes.cc. Throws BadRequest if the line is not "GET /path [argument]".
Request parse(const std::string &line);
