#ifndef BOARD_H
#define BOARD_H

#define SIZE 8

/* A search that can stop anywhere and go on: what it has tried is here, not on the stack. */
struct board {
  int column[SIZE]; /* of the piece in each row; below the deepest row: 0 */
  long ways;
};

/* Goes on counting the ways to place SIZE pieces. 0: a patch waits, and it is not finished. */
int board_search(struct board *board, int row);

#endif
