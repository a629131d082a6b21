#include "case.h"
//# Patch: ok
//# Expect: 5 b 7

#include <map>
#include <string>
#include <vector>
static std::vector<int> numbers;
static std::map<int, std::string> names;

void answer(const char *line)
{
  (void)line;
  numbers.push_back(1);
  numbers.push_back(2);
  names[1] = "b";
  std::map<std::string, long> fresh{{"x", 7}};

  printf("%zu %s %ld\n", numbers.size(), names[1].c_str(), fresh.at("x"));
}
