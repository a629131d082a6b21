#include "case.h"
#include <string>

int number(int n);
std::string second = "second " + std::to_string(number(2));
