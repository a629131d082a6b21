#include "case.h"

inline NOINLINE int next()
{
  static int n;

  return n += 1;
}
int other() { return next(); }
