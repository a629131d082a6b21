#include "case.h"
//# Patch: ok
//# Expect: dog bark 3
//# Reject: base

struct Animal {
  virtual ~Animal() {}
  virtual const char *sound() const { return "base"; }
  virtual const char *other() const { return "woof"; }
};
struct Dog : Animal {
  const char *sound() const override { return "dog"; }
  const char *other() const override { return "bark"; }
};
static Animal *kept;
static int calls;

void answer(const char *line)
{
  (void)line;
  if (!kept)
    kept = new Dog;
  printf("%s %s %d\n", kept->sound(), kept->other(), ++calls);
}
