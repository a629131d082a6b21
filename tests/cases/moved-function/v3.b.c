#include "case.h"

int other(int n) { return n; }
