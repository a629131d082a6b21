#include "case.h"

inline NOINLINE int next()
{
  static int n;

  return n += 10;
}
int other() { return next(); }
