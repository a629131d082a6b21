#include "case.h"
//# Patch: ok
//# Expect: 2/12 2 51
//# Reject: 2 12

inline int shared = 0;
inline int fresh = 50;
struct Config { static inline int level = 10; };
template <typename T> int per_type = 0;

void answer(const char *line)
{
  (void)line;
  per_type<int>++;
  printf("%d/%d %d %d\n", ++shared, ++Config::level, per_type<int>, ++fresh);
}
