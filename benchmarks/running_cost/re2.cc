// Expressions compiled, matched, searched and replaced, again and again.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "re2/re2.h"

int main(int argc, char **argv) {
  int rounds = argc > 1 ? std::atoi(argv[1]) : 100;
  std::string text;
  for (int i = 0; i < 300; ++i)
    text += "user" + std::to_string(i) + "@host" + std::to_string(i % 7) + ".example 2026-0" +
            std::to_string(i % 9 + 1) + "-1" + std::to_string(i % 10) + " GET /path/" + std::to_string(i * i) + "?q=x\n";
  long total = 0;
  for (int i = 0; i < rounds; ++i) {
    RE2 mail("([a-z]+\\d+)@([a-z0-9]+)\\.example"), date("(\\d{4})-(\\d{2})-(\\d{2})"), backwards("(?:a|b|[^\\n])*x$"),
        made("x{" + std::to_string(i % 30) + ",40}y|(foo|bar|baz)+[[:alpha:]]*\\b" + std::to_string(i));
    re2::StringPiece input(text);
    std::string user, host;
    while (RE2::FindAndConsume(&input, mail, &user, &host))
      total += user.size() * host.size();
    input = text;
    int year, month, day;
    while (RE2::FindAndConsume(&input, date, &year, &month, &day))
      total += year + month + day;
    total += RE2::PartialMatch(text, made) + RE2::PartialMatch(text, backwards);
    std::string copy = text.substr(0, 4000);
    total += RE2::GlobalReplace(&copy, "(\\w+)@(\\w+)", "\\2 at \\1");
  }
  std::printf("%ld\n", total);
}
