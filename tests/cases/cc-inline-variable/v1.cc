// Inline variables and static data members, which live on, and new ones.
#include "case.h"
//# Expect: 1 11

inline int shared = 0;
struct Config { static inline int level = 10; };
template <typename T> int per_type = 0;

void answer(const char *line)
{
  (void)line;
  per_type<int>++;
  printf("%d %d\n", ++shared, ++Config::level);
}
