#include "case.h"

int other(int n) { return n; }
NOINLINE int moving(int n) { return n + 5; }
