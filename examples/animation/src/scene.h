/* What the frame loop (main.c) and the effects (effects.c) share. */
#ifndef SCENE_H
#define SCENE_H

enum { WIDTH = 60, HEIGHT = 16, N_PARTICLES = 24, MAX_EFFECTS = 8 };

struct particle {
  float x, y;   /* cells, from the top left */
  float dx, dy; /* cells per frame */
  int age;      /* frames since it left the fountain */
};

struct scene;
typedef void (*effect_fn)(struct scene *scene);

struct scene {
  long frame;
  long score;
  struct particle particles[N_PARTICLES];
  effect_fn effects[MAX_EFFECTS]; /* called in this order, once a frame */
  int n_effects;
  char cells[HEIGHT][WIDTH + 1];
  char caption[WIDTH + 1];
};

/* effects.c: puts its callbacks into the table, once, at the start. */
void register_effects(struct scene *scene);

#endif
