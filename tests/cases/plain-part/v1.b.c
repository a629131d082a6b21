#include "case.h"

int plain_variable = 10;
int plain(int (*callback)(int), int n) { return callback(n) + 1; }
int plain_only(int n) { return n + 5; }
