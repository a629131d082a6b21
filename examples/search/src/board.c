/* In how many ways can pieces stand on a board without taking each other? Edit the rule while it is counted. */
#include "board.h"

#include <hotreload.h>
#include <stdlib.h>

/* Queens. Without the second line they are rooks. */
static int takes(int rows, int columns)
{
  return columns == 0 ||
         abs(columns) == rows;
}

static int is_free(const struct board *board, int row)
{
  int i;

  for (i = 0; i < row; i++)
    if (takes(row - i, board->column[row] - board->column[i]))
      return 0;
  return 1;
}

int board_search(struct board *board, int row)
{
  if (row == SIZE) {
    board->ways++;
    return 1;
  }
  for (; board->column[row] < SIZE; board->column[row]++) {
    if (hotreload_pending())
      return 0; /* up all of the stack, to the safepoint */
    if (is_free(board, row) && !board_search(board, row + 1))
      return 0;
  }
  board->column[row] = 0;
  return 1;
}
