#include "case.h"

namespace {
int counter = 100;
NOINLINE int step() { return ++counter + 1000; }
}
int other() { return step(); }
