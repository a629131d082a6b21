// Containers of the library, of types that were there and new ones.
#include "case.h"
//# Not: clang -O0
//# Expect: 1 b

#include <map>
#include <string>
#include <vector>
static std::vector<int> numbers;
static std::map<int, std::string> names;

void answer(const char *line)
{
  (void)line;
  numbers.push_back(1);
  names[1] = "b";
  printf("%zu %s\n", numbers.size(), names[1].c_str());
}
