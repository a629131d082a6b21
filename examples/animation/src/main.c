/* The frame loop: calls the effects through the table it was given, shows the scene, waits.
 *
 *   animation             draws until Ctrl-C
 *   animation --plain N   prints one line a frame, N frames at most
 *
 * It also ends when whatever it reads from or whoever started it is gone. */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "scene.h"

enum { FRAME_US = 50 * 1000, LONGEST_RUN = 60 * 60 * 20 /* frames: an hour */ };

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
  (void)number;
  interrupted = 1;
}

static int is_abandoned(pid_t parent)
{
  struct pollfd input = {.fd = STDIN_FILENO, .events = 0}; /* hang-ups are reported unasked */

  return getppid() != parent || (poll(&input, 1, 0) > 0 && (input.revents & (POLLHUP | POLLERR)));
}

static void show_plain(const struct scene *scene)
{
  char seen[WIDTH + 1]; /* each column: its topmost particle */

  memset(seen, ' ', WIDTH);
  seen[WIDTH] = '\0';
  for (int y = HEIGHT - 1; y >= 0; y--)
    for (int x = 0; x < WIDTH; x++)
      if (scene->cells[y][x] != ' ')
        seen[x] = scene->cells[y][x];
  printf("frame %ld score %ld [%s] %s\n", scene->frame, scene->score, seen, scene->caption);
}

static void show(const struct scene *scene)
{
  printf("\033[H");
  for (int y = 0; y < HEIGHT; y++)
    printf("  %s\033[K\n", scene->cells[y]);
  printf("  frame %ld   score %ld   %s\033[K\n", scene->frame, scene->score, scene->caption);
}

int main(int argc, char **argv)
{
  int plain = argc == 3 && strcmp(argv[1], "--plain") == 0;
  long last = plain ? atol(argv[2]) : LONGEST_RUN;
  pid_t parent = getppid();
  struct scene *scene = calloc(1, sizeof *scene);

  if (!scene || (argc > 1 && !plain)) {
    fprintf(stderr, "usage: animation [--plain FRAMES]\n");
    return 2;
  }
  signal(SIGINT, on_signal);
  signal(SIGTERM, on_signal);
  register_effects(scene);
  if (!plain)
    printf("\033[2J\033[?25l");
  while (!interrupted && scene->frame < last && !is_abandoned(parent)) {
    scene->frame++;
    for (int i = 0; i < scene->n_effects; i++)
      scene->effects[i](scene);
    (plain ? show_plain : show)(scene);
    fflush(stdout);
    usleep(FRAME_US);
  }
  if (!plain)
    printf("\033[?25h");
  free(scene);
  return 0;
}
