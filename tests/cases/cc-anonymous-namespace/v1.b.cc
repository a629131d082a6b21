#include "case.h"

namespace {
int counter = 100;
NOINLINE int step() { return ++counter; }
}
int other() { return step(); }
