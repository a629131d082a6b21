// Multiple and virtual inheritance: thunks and tables of tables.
#include "case.h"
//# Expect: 1 2 3

struct Root { int r = 1; virtual ~Root() {} virtual int root() { return r; } };
struct Left : virtual Root { int l = 2; virtual int left() { return l; } };
struct Right : virtual Root { int t = 3; virtual int right() { return t; } };
struct Both : Left, Right {
  int root() override { return r; }
  int right() override { return t; }
};
static Both *kept;
static Right *as_right;
static Root *as_root;

void answer(const char *line)
{
  (void)line;
  if (!kept)
    as_root = as_right = kept = new Both;
  printf("%d %d %d\n", as_root->root(), kept->left(), as_right->right());
}
