// The body of a virtual function, for objects made before; an override is added to a class that had none.
#include "case.h"
//# Expect: base woof 1

struct Animal {
  virtual ~Animal() {}
  virtual const char *sound() const { return "base"; }
  virtual const char *other() const { return "woof"; }
};
struct Dog : Animal {
  const char *other() const override { return "woof"; }
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
