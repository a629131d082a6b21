#include "case.h"
//# Patch: ok
//# Expect: 3|13 3 52

inline int shared = 0;
inline int fresh = 50;
struct Config { static inline int level = 10; };
template <typename T> int per_type = 0;

void answer(const char *line)
{
  (void)line;
  per_type<int>++;
  printf("%d|%d %d %d\n", ++shared, ++Config::level, per_type<int>, ++fresh);
}
