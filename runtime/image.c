/* The image this copy of the runtime is linked into, and how to find all others in the process. */
#include "internal.h"

#include <errno.h>
#include <link.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef HOTRELOAD_ARENA_SIZE
#define HOTRELOAD_ARENA_SIZE (64ul << 20)
#endif
_Static_assert(HOTRELOAD_ARENA_SIZE % HR_PAGE == 0, "HOTRELOAD_ARENA_SIZE must be a multiple of the page size");

#define STRING(x) #x
#define TEXT(x) STRING(x)

/* Address space inside the image, so that new code reaches old code with 32-bit displacements. */
static uint8_t arena[HOTRELOAD_ARENA_SIZE] __attribute__((aligned(HR_PAGE)));

/* Room in every thread's block of the image for thread-locals that patches bring. Handed out by the tool
 * (hotreload_tool/plan.py), which finds it by its name. It is zeros, but in the part of the TLS segment that comes from
 * the file: what is written there, threads to come begin with. */
#ifndef HOTRELOAD_TLS_SIZE
#define HOTRELOAD_TLS_SIZE 1024
#endif
__thread char hr_tls_reserve[HOTRELOAD_TLS_SIZE]
    __attribute__((aligned(16), visibility("hidden"), section(".tdata.hotreload"))) = {0};

/* Weak: a C program may have no unwinder. Taken from the image itself, because a program linked with
 * -static-libgcc throws with its own copy and never sees what libgcc_s was told. */
extern void __register_frame(void *) __attribute__((weak, visibility("default")));
extern void __deregister_frame(void *) __attribute__((weak, visibility("default")));

/* Present when a leak checker is linked in: it reads all writable segments at exit. */
extern void __lsan_do_leak_check(void) __attribute__((weak, visibility("default")));

/* Weak here, 1 in poll.o: the linker takes poll.o from its archive only if the program calls into it. */
int hr_poll_linked __attribute__((weak)) = 0;

/* An array that the linker makes of what HOTRELOAD_BEFORE_PATCH and its kin put into their section. */
extern const struct hotreload_hook __start_hotreload_hooks[] __attribute__((weak));
extern const struct hotreload_hook __stop_hotreload_hooks[] __attribute__((weak));

static int own_pending(void) { return (int)__atomic_load_n(&hr_self.pending, __ATOMIC_ACQUIRE); }

struct hr_image hr_self = {
  .magic = HR_IMAGE_MAGIC,
  .abi = HR_ABI,
  .poll_mode = &hr_poll_linked,
  .arena = {(uintptr_t)arena, (uintptr_t)arena + HOTRELOAD_ARENA_SIZE},
  .waiting = own_pending,
  .hooks = __start_hotreload_hooks,
  .hooks_end = __stop_hotreload_hooks,
};

extern const char hr_image_note[] __attribute__((visibility("hidden")));
__asm__(
  ".pushsection .note.hotreload,\"a\",@note\n"
  "  .balign 4\n"
  "  .hidden hr_image_note\n"
  "  .globl hr_image_note\n"
  "hr_image_note:\n"
  "  .long 10, 8, " TEXT(HR_NOTE_IMAGE) "\n"
  "  .asciz \"hotreload\"\n"
  "  .balign 4\n"
  "  .quad hr_self - .\n"
  "  .popsection\n");

/* Makes pages of an arena inaccessible, uncommitted and absent from core dumps. */
bool hr_arena_close(struct hr_range pages) {
  int prot = __lsan_do_leak_check ? PROT_READ : PROT_NONE;
  size_t size = pages.end - pages.start;
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
  void *at = hr_fault(HR_STEP_ARENA) ? MAP_FAILED : mmap((void *)pages.start, size, prot, flags, -1, 0);

  if (at == MAP_FAILED)
    return false;
  madvise(at, size, MADV_DONTDUMP);
  return true;
}

/* Called once, by the image's constructor. */
bool hr_image_prepare(void) {
  __asm__ volatile("" : : "r"(hr_image_note), "r"(hr_tls_reserve)); /* so that --gc-sections keeps them */
  if (!hr_arena_close(hr_self.arena))
    return false;
  /* By code, which reads the GOT: for a pointer in data gold makes a PLT entry even of a symbol that nobody has. */
  hr_self.trusts = hr_own_trusts;
  hr_self.unwinder = (struct hr_unwinder){__register_frame, __deregister_frame};
  return true;
}

/* Called by the image's destructor: its unwind tables are about to be unmapped. No lock: while an agent
 * works on an image it holds a handle, so dlclose cannot get here. */
void hr_image_release(void) {
  struct hr_record *record;

  for (record = hr_self.records; record; record = record->older)
    hr_record_unregister_unwind(record);
  for (record = hr_self.reverted; record; record = record->older)
    hr_record_unregister_unwind(record);
}

static void free_records(struct hr_record *record) {
  while (record) {
    struct hr_record *older = record->older;

    if (record->applied)
      hr_store_give(record->applied, record->header->n_updates);
    if (record->header_size)
      hr_store_give((void *)record->header, record->header_size);
    hr_store_give(record->segments, record->n_segments * sizeof *record->segments);
    hr_store_give(record, sizeof *record);
    record = older;
  }
}

/* Of an image that is being unloaded. The caller keeps requests out. */
void hr_records_free(struct hr_image *image) {
  struct hr_record *records = image->records, *reverted = image->reverted;

  __atomic_store_n(&image->ready, 0, __ATOMIC_RELEASE);
  image->records = image->reverted = NULL;
  free_records(records);
  free_records(reverted);
}

unsigned long hotreload_generation(void) { return __atomic_load_n(&hr_self.generation, __ATOMIC_ACQUIRE); }

/* ---- finding images ------------------------------------------------------------------------------ */

typedef bool note_visit(const Elf64_Nhdr *note, const char *owner, const uint8_t *content, void *context);

/* Whether the program header's bytes are in memory: some tools leave PT_NOTE headers that are not loaded. */
static bool is_loaded(const struct dl_phdr_info *info, const Elf64_Phdr *header) {
  int i;

  for (i = 0; i < info->dlpi_phnum; i++) {
    const Elf64_Phdr *load = &info->dlpi_phdr[i];

    if (load->p_type == PT_LOAD && load->p_flags & PF_R && header->p_vaddr >= load->p_vaddr &&
        header->p_memsz <= load->p_filesz && header->p_vaddr - load->p_vaddr <= load->p_filesz - header->p_memsz)
      return true;
  }
  return false;
}

/* Linkers put notes of 4 and of 8 bytes' alignment into one segment, and then a walk from note to note goes
 * astray (mold 1.10). So every place where a note could begin is looked at; a visitor must know its own. */
static bool visit_notes(uintptr_t start, const Elf64_Phdr *header, note_visit *visit, void *context) {
  uintptr_t at, end = start + header->p_memsz;

  for (at = start; end - at >= sizeof(Elf64_Nhdr); at += 4) {
    Elf64_Nhdr note;
    uint64_t content;

    memcpy(&note, (const void *)at, sizeof note);
    content = (sizeof note + (uint64_t)note.n_namesz + 3) & ~(uint64_t)3;
    if (content > end - at || note.n_descsz > end - at - content)
      continue;
    if (!visit(&note, (const char *)at + sizeof note, (const uint8_t *)at + content, context))
      return false;
  }
  return true;
}

static bool take_note(const Elf64_Nhdr *note, const char *owner, const uint8_t *content, void *context) {
  struct hr_loaded *loaded = context;

  if (note->n_type == HR_NOTE_IMAGE && note->n_namesz == 10 && note->n_descsz == 8 && !memcmp(owner, "hotreload", 10)) {
    int64_t distance;

    memcpy(&distance, content, sizeof distance);
    loaded->image = (struct hr_image *)((uintptr_t)content + (uintptr_t)distance);
  }
  if (note->n_type == NT_GNU_BUILD_ID && note->n_namesz == 4 && !memcmp(owner, "GNU", 4) && note->n_descsz > 0 &&
      note->n_descsz <= HR_BUILD_ID_MAX) {
    memcpy(loaded->build_id, content, note->n_descsz);
    loaded->build_id_size = note->n_descsz;
  }
  return true;
}

static bool image_is_inside(const struct hr_loaded *loaded) {
  unsigned i;

  for (i = 0; i < loaded->n_headers; i++) {
    const Elf64_Phdr *load = &loaded->headers[i];
    struct hr_range at = {loaded->bias + load->p_vaddr, loaded->bias + load->p_vaddr + load->p_memsz};

    if (load->p_type == PT_LOAD && load->p_flags & PF_W &&
        hr_inside(at, (uintptr_t)loaded->image, sizeof *loaded->image))
      return true;
  }
  return false;
}

struct walk {
  hr_visit *visit;
  void *context;
};

static int on_object(struct dl_phdr_info *info, size_t size, void *context) {
  const struct walk *walk = context;
  struct hr_loaded loaded = {
    .bias = info->dlpi_addr,
    .headers = info->dlpi_phdr,
    .n_headers = info->dlpi_phnum,
    .is_main = !info->dlpi_name || !info->dlpi_name[0],
    .name = info->dlpi_name ? info->dlpi_name : "",
  };
  unsigned i;

  if (size >= offsetof(struct dl_phdr_info, dlpi_tls_modid) + sizeof info->dlpi_tls_modid)
    loaded.tls_module = info->dlpi_tls_modid;
  for (i = 0; i < loaded.n_headers; i++)
    if (info->dlpi_phdr[i].p_type == PT_NOTE && is_loaded(info, &info->dlpi_phdr[i]))
      visit_notes(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr, &info->dlpi_phdr[i], take_note, &loaded);
  if (!loaded.image || !image_is_inside(&loaded) || loaded.image->magic != HR_IMAGE_MAGIC)
    return 0;
  return !walk->visit(&loaded, walk->context);
}

/* Visits every instrumented image, also those of another HR_ABI and those that are not `ready` yet.
 * The loader's lock is held meanwhile: a visit must not call dlopen, dlsym or dlclose. */
void hr_each_image(hr_visit *visit, void *context) {
  struct walk walk = {visit, context};

  dl_iterate_phdr(on_object, &walk);
}

struct owner_search {
  int32_t pid;
  struct hr_image *found;
};

static bool is_owner(const struct hr_loaded *loaded, void *context) {
  struct owner_search *search = context;

  if (__atomic_load_n(&loaded->image->owner_pid, __ATOMIC_ACQUIRE) == search->pid)
    search->found = loaded->image;
  return !search->found;
}

/* The image whose copy is the agent of this process, or null. */
struct hr_image *hr_find_owner(void) {
  struct owner_search search = {.pid = getpid()};

  hr_each_image(is_owner, &search);
  return search.found;
}
