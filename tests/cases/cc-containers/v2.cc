#include "case.h"
//# Patch: ok
//# Expect: 3 b
//# Reject: 2 b

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
  printf("%zu %s\n", numbers.size(), names[1].c_str());
}
