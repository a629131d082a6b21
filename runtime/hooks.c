/* Functions of the program that want to know of patches. They run on the agent's thread (in poll mode, on the one that
 * polls), while no thread is halted: they may do what any code may, but not wait for a patch. */
#include "internal.h"

#include <inttypes.h>

typedef bool hook_visit(const struct hotreload_hook *hook, const struct hr_candidate *c, uint64_t from, uint64_t to,
                        void *context);

static uint64_t generation_after(const struct hr_candidate *c) {
  if (c->revert)
    return c->down_to ? c->down_to->generation : 0;
  return c->record->generation;
}

/* Hooks of the images that change, in the order of their images and of their object files. */
static bool each_hook(const struct hr_transaction *t, int kind, hook_visit *visit, void *context) {
  unsigned i;

  for (i = 0; i < t->n_candidates; i++) {
    const struct hr_candidate *c = &t->candidates[i];
    const struct hotreload_hook *hook;
    uint64_t from = c->from_generation, to = generation_after(c);

    for (hook = c->loaded.image->hooks; !c->already && hook < c->loaded.image->hooks_end; hook++)
      if (hook->kind == kind && !visit(hook, c, from, to, context))
        return false;
  }
  return true;
}

static bool ask(const struct hotreload_hook *hook, const struct hr_candidate *c, uint64_t from, uint64_t to,
                void *context) {
  struct hr_error *error = context;
  int answer;

  hr_fork_allow();
  answer = hook->run(from, to);
  hr_fork_forbid();
  if (!answer)
    return true;
  return hr_refuse(error, HR_VETO, "the hook at 0x%" PRIxPTR " of %s answered %d to the step from generation %" PRIu64
                   " to %" PRIu64, (uintptr_t)hook->run - c->loaded.bias, c->loaded.is_main ? "the program" : c->name,
                   answer,
                   from, to);
}

static bool tell(const struct hotreload_hook *hook, const struct hr_candidate *c, uint64_t from, uint64_t to,
                 void *context) {
  (void)c;
  (void)context;
  hr_fork_allow();
  hook->run(from, to);
  hr_fork_forbid();
  return true;
}

/* They are the program's code, and run beside its thread. */
static bool can_run(const struct hr_transaction *t) {
  bool any = false;
  unsigned i;

  for (i = 0; i < t->n_candidates; i++)
    any |= t->candidates[i].loaded.image->hooks < t->candidates[i].loaded.image->hooks_end;
  return !any || hr_single_settle(hr_deadline_of(t), t->error);
}

bool hr_hooks_before(struct hr_transaction *t) {
  bool revert = t->order->request->op == HR_OP_REVERT;
  unsigned i;

  for (i = 0; i < t->n_candidates; i++)
    t->candidates[i].from_generation = t->candidates[i].loaded.image->generation;
  return can_run(t) && each_hook(t, revert ? HOTRELOAD_HOOK_BEFORE_REVERT : HOTRELOAD_HOOK_BEFORE_PATCH, ask, t->error);
}

void hr_hooks_after(struct hr_transaction *t) {
  if (t->order->request->op != HR_OP_REVERT)
    each_hook(t, HOTRELOAD_HOOK_AFTER_PATCH, tell, NULL);
}
