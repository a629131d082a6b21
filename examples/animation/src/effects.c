/* The effects: edit any of them while the program runs, then `scons hotpatch`.
 * main.c has kept pointers to them since the program started. */
#include <stdio.h>
#include <string.h>

#include "scene.h"

static unsigned random_state = 2463534242u;
static long fountains; /* particles sent up again so far */

/* Marsaglia's xorshift32, scaled to [0, 1). */
static float chance(void)
{
  random_state ^= random_state << 13;
  random_state ^= random_state >> 17;
  random_state ^= random_state << 5;
  return (float)(random_state >> 8) / 16777216.0f;
}

static void send_up(struct particle *p)
{
  p->x = WIDTH / 2.0f;
  p->y = HEIGHT - 1;
  p->dx = chance() * 2.0f - 1.0f;
  p->dy = -0.6f - chance();
  p->age = 0;
  fountains++;
}

static void move(struct scene *scene)
{
  const float gravity = 0.06f;

  for (int i = 0; i < N_PARTICLES; i++) {
    struct particle *p = &scene->particles[i];
    p->x += p->dx;
    p->y += p->dy;
    p->dy += gravity;
    p->age++;
    if (p->y >= HEIGHT)
      send_up(p);
  }
}

/* A particle that turns at the top of its flight scores. */
static void count(struct scene *scene)
{
  for (int i = 0; i < N_PARTICLES; i++) {
    const struct particle *p = &scene->particles[i];
    if (p->dy >= 0.0f && p->dy < 0.06f)
      scene->score += 1;
  }
}

static char glyph(const struct particle *p)
{
  return p->dy < 0.0f ? '|' : '.';
}

static void draw(struct scene *scene)
{
  for (int y = 0; y < HEIGHT; y++) {
    memset(scene->cells[y], ' ', WIDTH);
    scene->cells[y][WIDTH] = '\0';
  }
  for (int i = 0; i < N_PARTICLES; i++) {
    const struct particle *p = &scene->particles[i];
    int x = (int)p->x, y = (int)p->y;
    if (x >= 0 && x < WIDTH && y >= 0 && y < HEIGHT)
      scene->cells[y][x] = glyph(p);
  }
}

static void write_caption(struct scene *scene)
{
  snprintf(scene->caption, sizeof scene->caption, "a small fountain, %ld sent up", fountains);
}

void register_effects(struct scene *scene)
{
  static const effect_fn all[] = {move, count, draw, write_caption};

  for (unsigned i = 0; i < sizeof all / sizeof all[0]; i++)
    scene->effects[scene->n_effects++] = all[i];
  for (int i = 0; i < N_PARTICLES; i++) {
    send_up(&scene->particles[i]);
    scene->particles[i].y -= chance() * HEIGHT;
  }
}
