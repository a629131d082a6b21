#include "case.h"

int even(int n);
NOINLINE int odd(int n) { return n ? even(n - 1) : 50; }
