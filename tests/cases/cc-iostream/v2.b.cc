#include "case.h"
#include <iostream>
#include <string>

static std::string made = std::string("new") + (getenv("HOME") ? " made" : " made");
std::string zero(void) { return std::cout.good() ? made : "bad"; }
