/* One payload file becomes mapped, relocated pages of an arena, or nothing at all.
 *
 * The file is not trusted: every offset, count and address is checked before it is used, in overflow-safe
 * form. Everything runs in prepare: it may allocate, take locks and fail. */
#include "internal.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <link.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_HEADERS 64
#define MAX_VERSIONS 1024     /* libraries, and versions of one: damaged links must not go on for ever */

bool hr_inside(struct hr_range range, uintptr_t at, uint64_t size) {
  return at >= range.start && at <= range.end && size <= range.end - at;
}

/* The segment that holds all of [at, at + size), or null. */
const struct hr_segment *hr_record_segment(const struct hr_record *record, uintptr_t at, uint64_t size) {
  uint32_t i;

  for (i = 0; i < record->n_segments; i++)
    if (hr_inside(record->segments[i].at, at, size))
      return &record->segments[i];
  return NULL;
}

/* ---- the file's headers -------------------------------------------------------------------------- */

static bool check_ident(const Elf64_Ehdr *ehdr, struct hr_error *error) {
  if (memcmp(ehdr->e_ident, ELFMAG, SELFMAG))
    return hr_refuse(error, HR_BAD_PAYLOAD, "not an ELF file");
  if (ehdr->e_ident[EI_CLASS] != ELFCLASS64 || ehdr->e_ident[EI_DATA] != ELFDATA2LSB ||
      (ehdr->e_type != ET_DYN && ehdr->e_type != ET_EXEC) || ehdr->e_machine != HR_ARCH_MACHINE ||
      ehdr->e_version != EV_CURRENT)
    return hr_refuse(error, HR_BAD_PAYLOAD, "not a 64-bit ELF image for this machine (type %u, machine %u)",
                     ehdr->e_type, ehdr->e_machine);
  if (ehdr->e_phentsize != sizeof(Elf64_Phdr) || ehdr->e_phnum < 1 || ehdr->e_phnum > MAX_HEADERS)
    return hr_refuse(error, HR_BAD_PAYLOAD, "%u program headers of %u bytes", ehdr->e_phnum, ehdr->e_phentsize);
  return true;
}

static bool check_load(const Elf64_Phdr *load, uint64_t file_size, struct hr_error *error) {
  if (load->p_vaddr >= HR_ADDRESS_LIMIT || load->p_memsz >= HR_ADDRESS_LIMIT || load->p_filesz > load->p_memsz)
    return hr_refuse(error, HR_BAD_PAYLOAD, "segment at 0x%" PRIx64 " has an impossible size", load->p_vaddr);
  if (load->p_offset > file_size || load->p_filesz > file_size - load->p_offset)
    return hr_refuse(error, HR_BAD_PAYLOAD, "segment at 0x%" PRIx64 " ends at byte %" PRIu64 " of a file of %" PRIu64,
                     load->p_vaddr, load->p_offset + load->p_filesz, file_size);
  if ((load->p_vaddr - load->p_offset) % HR_PAGE)
    return hr_refuse(error, HR_BAD_PAYLOAD, "segment at 0x%" PRIx64 " is not page-aligned", load->p_vaddr);
  if (!(load->p_flags & PF_R) || (load->p_flags & (PF_W | PF_X)) == (PF_W | PF_X))
    return hr_refuse(error, HR_BAD_PAYLOAD, "segment at 0x%" PRIx64 " is %s", load->p_vaddr,
                     load->p_flags & PF_R ? "writable and executable" : "not readable");
  if (load->p_memsz > load->p_filesz && !(load->p_flags & PF_W))
    return hr_refuse(error, HR_BAD_PAYLOAD, "segment at 0x%" PRIx64 " has zeros to add but is read-only",
                     load->p_vaddr);
  return true;
}

static bool add_load(struct hr_elf *elf, const Elf64_Phdr *load, uint64_t file_size, struct hr_error *error) {
  const Elf64_Phdr *last = elf->n_loads ? &elf->loads[elf->n_loads - 1] : NULL;

  if (!load->p_memsz)
    return true;
  if (!check_load(load, file_size, error))
    return false;
  if (elf->n_loads == HR_MAX_SEGMENTS)
    return hr_refuse(error, HR_BAD_PAYLOAD, "more than %d segments", HR_MAX_SEGMENTS);
  if (last && hr_page_down(load->p_vaddr) < hr_page_up(last->p_vaddr + last->p_memsz))
    return hr_refuse(error, HR_BAD_PAYLOAD, "segment at 0x%" PRIx64 " shares a page with the one before it",
                     load->p_vaddr);
  elf->loads[elf->n_loads++] = *load;
  return true;
}

static bool add_header(struct hr_elf *elf, const Elf64_Phdr *header, uint64_t file_size, struct hr_error *error) {
  switch (header->p_type) {
  case PT_LOAD:
    return add_load(elf, header, file_size, error);
  case PT_DYNAMIC:
    elf->dynamic = *header;
    return true;
  case PT_GNU_RELRO:
    elf->relro = *header;
    return true;
  case PT_GNU_STACK:
    if (header->p_flags & PF_X)
      return hr_refuse(error, HR_BAD_PAYLOAD, "it asks for an executable stack");
    return true;
  case PT_TLS:
    return hr_refuse(error, HR_UNSUPPORTED, "it brings new thread-local variables");
  case PT_INTERP:
    return hr_refuse(error, HR_BAD_PAYLOAD, "it is a program, not a payload");
  default:
    return true;
  }
}

static const Elf64_Phdr *load_of(const struct hr_elf *elf, uint64_t vaddr, uint64_t size, bool in_file) {
  unsigned i;

  for (i = 0; i < elf->n_loads; i++) {
    const Elf64_Phdr *load = &elf->loads[i];
    uint64_t extent = in_file ? load->p_filesz : load->p_memsz;

    if (vaddr >= load->p_vaddr && vaddr - load->p_vaddr <= extent && size <= extent - (vaddr - load->p_vaddr))
      return load;
  }
  return NULL;
}

static bool check_extras(const struct hr_elf *elf, struct hr_error *error) {
  const Elf64_Phdr *relro = NULL;

  if (!elf->n_loads)
    return hr_refuse(error, HR_BAD_PAYLOAD, "it has no segments");
  if (elf->dynamic.p_memsz &&
      (elf->dynamic.p_vaddr % 8 || !load_of(elf, elf->dynamic.p_vaddr, elf->dynamic.p_memsz, true)))
    return hr_refuse(error, HR_BAD_PAYLOAD, "its dynamic section lies outside its segments");
  if (elf->relro.p_memsz)
    relro = load_of(elf, elf->relro.p_vaddr, elf->relro.p_memsz, false);
  /* Linkers round the end of RELRO up to a page, past the segment's last byte. */
  if (elf->relro.p_memsz && !relro)
    relro = load_of(elf, elf->relro.p_vaddr, 1, false);
  if (elf->relro.p_memsz &&
      (!relro || !(relro->p_flags & PF_W) ||
       elf->relro.p_memsz > hr_page_up(relro->p_vaddr + relro->p_memsz) - elf->relro.p_vaddr))
    return hr_refuse(error, HR_BAD_PAYLOAD, "its RELRO range lies outside its writable segments");
  return true;
}

static bool read_payload_header(struct hr_elf *elf, struct hr_error *error) {
  struct hr_payload *header = &elf->header;
  const Elf64_Phdr *load = load_of(elf, elf->entry, sizeof *header, true);
  static const uint8_t zeros[HR_ID_SIZE];

  if (!load || elf->entry % 8)
    return hr_refuse(error, HR_BAD_PAYLOAD, "its entry 0x%" PRIx64 " is not a payload header", elf->entry);
  if (!hr_read_at(elf->content, header, sizeof *header, load->p_offset + (elf->entry - load->p_vaddr)))
    return hr_refuse(error, HR_BAD_PAYLOAD, "its payload header can't be read");
  if (header->magic != HR_PAYLOAD_MAGIC)
    return hr_refuse(error, HR_BAD_PAYLOAD, "no payload header at its entry 0x%" PRIx64, elf->entry);
  if (header->abi != HR_ABI)
    return hr_refuse(error, HR_ABI_MISMATCH, "the payload was made for version %u, the program has version %u",
                     header->abi, HR_ABI);
  if (header->size != sizeof *header || header->flags & ~HR_PAYLOAD_TRANSIENT || !header->build_id_size ||
      header->build_id_size > HR_BUILD_ID_MAX || !header->generation || !memcmp(header->id, zeros, HR_ID_SIZE))
    return hr_refuse(error, HR_BAD_PAYLOAD, "its payload header is damaged");
  if (header->n_init_array > 1)
    return hr_refuse(error, HR_UNSUPPORTED, "it brings several functions that initialise its objects");
  return true;
}

void hr_elf_close(struct hr_elf *elf) {
  if (elf->content != elf->file)
    close(elf->content);
  elf->content = elf->file;
}

static bool read_elf(struct hr_elf *elf, int file, struct hr_error *error) {
  Elf64_Phdr headers[MAX_HEADERS];
  Elf64_Ehdr ehdr;
  struct stat stat;
  unsigned i;

  if (hr_fault(HR_STEP_HEADERS) || fstat(file, &stat) || !S_ISREG(stat.st_mode))
    return hr_refuse(error, HR_BAD_PAYLOAD, "not a regular file");
  if (stat.st_size < (off_t)sizeof ehdr || (uint64_t)stat.st_size > HR_MAX_PAYLOAD ||
      !hr_read_at(file, &ehdr, sizeof ehdr, 0))
    return hr_refuse(error, HR_BAD_PAYLOAD, "a file of %lld bytes is no payload", (long long)stat.st_size);
  if (!check_ident(&ehdr, error))
    return false;
  if (ehdr.e_phoff > (uint64_t)stat.st_size || !hr_read_at(file, headers, ehdr.e_phnum * sizeof *headers, ehdr.e_phoff))
    return hr_refuse(error, HR_BAD_PAYLOAD, "its program headers lie outside the file");
  elf->entry = ehdr.e_entry;
  elf->absolute = ehdr.e_type == ET_EXEC;
  for (i = 0; i < ehdr.e_phnum; i++)
    if (!add_header(elf, &headers[i], (uint64_t)stat.st_size, error))
      return false;
  return check_extras(elf, error) && read_payload_header(elf, error);
}

/* Reads and checks what can be known before mapping. Leaves the process as it is. hr_elf_close() ends it. */
bool hr_elf_read(struct hr_elf *elf, int file, struct hr_error *error) {
  memset(elf, 0, sizeof *elf);
  elf->file = file;
  elf->content = hr_signed_content(file, error);
  if (elf->content >= 0 && read_elf(elf, elf->content, error))
    return true;
  if (elf->content >= 0)
    hr_elf_close(elf);
  elf->content = file;
  return false;
}

/* ---- mapping ------------------------------------------------------------------------------------- */

/* The file that segments are mapped from: the signed copy, or a sealed one of what is to be mapped, each byte where it
 * is in the file; -1: it failed. */
static int sealed_content(const struct hr_elf *elf, struct hr_error *error) {
  int copy;
  unsigned i;

  if (elf->content != elf->file)
    return elf->content;
  copy = hr_copy_new(elf->file, error);
  if (copy < 0)
    return -1;
  for (i = 0; i < elf->n_loads && hr_copy_bytes(elf->file, copy, elf->loads[i].p_offset, elf->loads[i].p_filesz, error);
       i++)
    ;
  if (i == elf->n_loads && hr_copy_seal(copy, error))
    return copy;
  close(copy);
  return -1;
}

static int protection(const Elf64_Phdr *load) {
  return PROT_READ | (load->p_flags & PF_W ? PROT_WRITE : 0) | (load->p_flags & PF_X ? PROT_EXEC : 0);
}

static bool is_free(const struct hr_candidate *c, struct hr_range pages, struct hr_error *error) {
  const struct hr_image *image = c->loaded.image;
  const struct hr_record *record;

  if (pages.start >= pages.end || !hr_inside(image->arena, pages.start, pages.end - pages.start))
    return hr_refuse(error, HR_NO_ARENA,
                     "the payload occupies 0x%" PRIxPTR "..0x%" PRIxPTR ", the arena is 0x%" PRIxPTR "..0x%" PRIxPTR,
                     pages.start - c->loaded.bias, pages.end - c->loaded.bias, image->arena.start - c->loaded.bias,
                     image->arena.end - c->loaded.bias);
  for (record = image->records; record; record = record->older)
    if (pages.start < record->pages.end && record->pages.start < pages.end)
      return hr_refuse(error, HR_NO_ARENA, "generation %" PRIu64 " occupies 0x%" PRIxPTR "..0x%" PRIxPTR " already",
                       record->generation, record->pages.start - c->loaded.bias, record->pages.end - c->loaded.bias);
  for (record = image->reverted; record; record = record->older)
    if (pages.start < record->pages.end && record->pages.start < pages.end)
      return hr_refuse(error, HR_NO_ARENA,
                       "code of generation %" PRIu64 ", which was reverted, still occupies 0x%" PRIxPTR
                       "..0x%" PRIxPTR, record->generation, record->pages.start - c->loaded.bias,
                       record->pages.end - c->loaded.bias);
  return true;
}

static bool map_load(const Elf64_Phdr *load, int file, uintptr_t bias, struct hr_error *error) {
  uintptr_t start = hr_page_down(bias + load->p_vaddr), file_end = bias + load->p_vaddr + load->p_filesz;
  uintptr_t end = hr_page_up(bias + load->p_vaddr + load->p_memsz), filled = start;
  int prot = protection(load);

  if (load->p_filesz) {
    filled = hr_page_up(file_end);
    if (hr_fault(HR_STEP_MAP) || mmap((void *)start, filled - start, prot, MAP_PRIVATE | MAP_FIXED, file,
                                      (off_t)hr_page_down(load->p_offset)) == MAP_FAILED)
      return hr_refuse(error, HR_NO_MEMORY,
                       "segment at 0x%" PRIx64 " can't be mapped: %s%s", load->p_vaddr, strerror(errno),
                       prot & PROT_EXEC && (errno == EPERM || errno == EACCES) ? " (by a security policy?)" : "");
    if (load->p_memsz > load->p_filesz)
      memset((void *)file_end, 0, filled - file_end);
  }
  if (filled < end &&
      (hr_fault(HR_STEP_MAP_BSS) || mmap((void *)filled, end - filled, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
                                         -1, 0) == MAP_FAILED))
    return hr_refuse(error, HR_NO_MEMORY, "%zu bytes of zeros can't be mapped: %s", (size_t)(end - filled),
                     strerror(errno));
  return true;
}

static bool map_loads(const struct hr_elf *elf, uintptr_t bias, struct hr_error *error) {
  int sealed = sealed_content(elf, error);
  unsigned i;

  for (i = 0; sealed >= 0 && i < elf->n_loads && map_load(&elf->loads[i], sealed, bias, error); i++)
    ;
  if (sealed >= 0 && sealed != elf->content)
    close(sealed);
  return sealed >= 0 && i == elf->n_loads;
}

/* What the payload takes of the arena. */
struct hr_range hr_elf_pages(const struct hr_elf *elf, uintptr_t bias) {
  const Elf64_Phdr *first = &elf->loads[0], *last = &elf->loads[elf->n_loads - 1];

  return (struct hr_range){hr_page_down(bias + first->p_vaddr), hr_page_up(bias + last->p_vaddr + last->p_memsz)};
}

static bool describe(struct hr_record *record, const struct hr_elf *elf, uintptr_t bias) {
  uint32_t i;

  record->segments = hr_store_take(elf->n_loads * sizeof *record->segments);
  if (!record->segments)
    return false;
  record->pages = hr_elf_pages(elf, bias);
  record->n_segments = elf->n_loads;
  for (i = 0; i < elf->n_loads; i++) {
    uintptr_t start = bias + elf->loads[i].p_vaddr;

    record->segments[i].at = (struct hr_range){start, start + elf->loads[i].p_memsz};
    record->segments[i].prot = protection(&elf->loads[i]);
  }
  if (elf->relro.p_memsz) { /* rounded as ld.so does it */
    record->relro.start = hr_page_down(bias + elf->relro.p_vaddr);
    record->relro.end = hr_page_down(bias + elf->relro.p_vaddr + elf->relro.p_memsz);
  }
  return true;
}

static struct hr_record *new_record(const struct hr_elf *elf) {
  struct hr_record *record = hr_fault(HR_STEP_RECORD) ? NULL : hr_store_take(sizeof *record);

  if (record) {
    record->generation = elf->header.generation;
    memcpy(record->id, elf->header.id, HR_ID_SIZE);
  }
  return record;
}

/* Maps the payload over its part of the arena, and makes c->record if it is a new one. After a failure the pages are
 * closed again, by the caller's undo. */
bool hr_payload_map(struct hr_candidate *c, struct hr_error *error) {
  const struct hr_elf *elf = c->elf;
  struct hr_record *record = c->record;

  if (elf->absolute && c->loaded.bias)
    return hr_refuse(error, HR_BAD_PAYLOAD, "the payload has absolute addresses, but the image was moved");
  if (!is_free(c, hr_elf_pages(elf, c->loaded.bias), error))
    return false;
  if (!record)
    record = c->record = new_record(elf);
  if (!record || !describe(record, elf, c->loaded.bias))
    return hr_refuse(error, HR_NO_MEMORY, "no memory for the description of a payload");
  if (!map_loads(elf, c->loaded.bias, error))
    return false;
  record->header = (const struct hr_payload *)(c->loaded.bias + elf->entry);
  return true;
}

/* Gives its pages back. Its header goes with them, if it is not in the store. */
void hr_record_unmap(struct hr_record *record) {
  hr_record_unregister_unwind(record);
  if (record->unwinder_handle)
    dlclose(record->unwinder_handle);
  record->unwinder_handle = NULL;
  record->n_unwinders = 0;
  if (record->pages.start < record->pages.end)
    hr_arena_close(record->pages);
  hr_store_give(record->segments, record->n_segments * sizeof *record->segments);
  record->segments = NULL;
  record->n_segments = 0;
  record->pages = record->relro = (struct hr_range){0, 0};
}

/* ---- relocation ---------------------------------------------------------------------------------- */

struct dynamic { /* addresses are absolute, 0: absent */
  uintptr_t rela, jmprel, symtab, strtab, versym, verneed;
  uint64_t rela_size, jmprel_size, strtab_size, n_verneed;
};

/* A table of `size` bytes inside the payload, aligned for its entries. */
static bool table(const struct hr_candidate *c, uintptr_t at, uint64_t size, size_t align) {
  return at % align == 0 && hr_record_segment(c->record, at, size);
}

static bool take_dynamic(struct dynamic *d, const Elf64_Dyn *entry, uintptr_t bias, struct hr_error *error) {
  uint64_t value = entry->d_un.d_val;

  switch (entry->d_tag) {
  case DT_RELA: d->rela = bias + value; return true;
  case DT_RELASZ: d->rela_size = value; return true;
  case DT_JMPREL: d->jmprel = bias + value; return true;
  case DT_PLTRELSZ: d->jmprel_size = value; return true;
  case DT_SYMTAB: d->symtab = bias + value; return true;
  case DT_STRTAB: d->strtab = bias + value; return true;
  case DT_STRSZ: d->strtab_size = value; return true;
  case DT_VERSYM: d->versym = bias + value; return true;
  case DT_VERNEED: d->verneed = bias + value; return true;
  case DT_VERNEEDNUM: d->n_verneed = value; return true;
  case DT_RELAENT:
    return value == sizeof(Elf64_Rela) || hr_refuse(error, HR_BAD_PAYLOAD, "relocations of %" PRIu64 " bytes", value);
  case DT_SYMENT:
    return value == sizeof(Elf64_Sym) || hr_refuse(error, HR_BAD_PAYLOAD, "symbols of %" PRIu64 " bytes", value);
  case DT_PLTREL:
    return value == DT_RELA || hr_refuse(error, HR_BAD_PAYLOAD, "call relocations are not of type RELA");
  case DT_TEXTREL:
    return hr_refuse(error, HR_BAD_PAYLOAD, "it has relocations in its code");
  case DT_FLAGS:
    return !(value & DF_TEXTREL) || hr_refuse(error, HR_BAD_PAYLOAD, "it has relocations in its code");
  case DT_INIT: case DT_FINI: case DT_INIT_ARRAYSZ: case DT_FINI_ARRAYSZ: case DT_PREINIT_ARRAYSZ:
    return !value || hr_refuse(error, HR_UNSUPPORTED, "it brings initialisers that run code");
  case DT_REL: case DT_RELR:
    return hr_refuse(error, HR_UNSUPPORTED, "its relocations are packed; link it with -z nopack-relative-relocs");
  default:
    return true;
  }
}

static bool read_dynamic(const struct hr_candidate *c, struct dynamic *d, struct hr_error *error) {
  const Elf64_Phdr *where = &c->elf->dynamic;
  const Elf64_Dyn *entry = (const Elf64_Dyn *)(c->loaded.bias + where->p_vaddr);
  uint64_t n = where->p_memsz / sizeof *entry, i;

  for (i = 0; i < n && entry[i].d_tag != DT_NULL; i++)
    if (!take_dynamic(d, &entry[i], c->loaded.bias, error))
      return false;
  if ((d->rela_size && !table(c, d->rela, d->rela_size, 8)) ||
      (d->jmprel_size && !table(c, d->jmprel, d->jmprel_size, 8)))
    return hr_refuse(error, HR_BAD_PAYLOAD, "its relocations lie outside its segments");
  if (d->strtab_size && !table(c, d->strtab, d->strtab_size, 1))
    return hr_refuse(error, HR_BAD_PAYLOAD, "its symbol names lie outside its segments");
  return true;
}

static const char *string_at(const struct dynamic *d, uint64_t offset) {
  const char *string = (const char *)d->strtab + offset;

  return offset < d->strtab_size && memchr(string, 0, d->strtab_size - offset) ? string : NULL;
}

/* The name of the version that symbol `index` asks for. *name is null if it asks for none.
 * Layout: Linux Standard Base, "Symbol Versioning". */
static bool version_of(const struct hr_candidate *c, const struct dynamic *d, uint64_t index, const char **name) {
  uintptr_t need = d->verneed, aux;
  uint64_t i, j;
  uint16_t wanted;

  *name = NULL;
  if (!d->versym || !d->verneed)
    return true;
  if (!table(c, d->versym + index * 2, 2, 2))
    return false;
  wanted = *(const uint16_t *)(d->versym + index * 2) & 0x7fff;
  if (wanted <= VER_NDX_GLOBAL)
    return true;
  for (i = 0; i < d->n_verneed && i < MAX_VERSIONS; i++) {
    const Elf64_Verneed *entry = (const Elf64_Verneed *)need;

    if (!table(c, need, sizeof *entry, 4))
      return false;
    aux = need + entry->vn_aux;
    for (j = 0; j < entry->vn_cnt && j < MAX_VERSIONS; j++) {
      const Elf64_Vernaux *version = (const Elf64_Vernaux *)aux;

      if (!table(c, aux, sizeof *version, 4))
        return false;
      if ((version->vna_other & 0x7fff) == wanted)
        return (*name = string_at(d, version->vna_name)) != NULL;
      aux += version->vna_next;
    }
    need += entry->vn_next;
  }
  return false;
}

/* The global scope first, as the image's own references see it, then the image's own libraries. */
static void *find_symbol(const struct hr_candidate *c, const char *name, const char *version) {
  void *scopes[2] = {c->program, c->loaded.is_main ? NULL : c->handle}, *found = NULL;
  unsigned i;

  for (i = 0; i < 2 && !found; i++)
    if (scopes[i])
      found = version ? dlvsym(scopes[i], name, version) : dlsym(scopes[i], name);
  return found;
}

static bool import(const struct hr_candidate *c, const struct dynamic *d, uint64_t index, const Elf64_Sym *symbol,
                   uint64_t *value, struct hr_error *error) {
  const char *name = string_at(d, symbol->st_name), *version;

  if (!name || !name[0] || !version_of(c, d, index, &version))
    return hr_refuse(error, HR_BAD_PAYLOAD, "symbol %" PRIu64 " has no valid name or version", index);
  if (ELF64_ST_TYPE(symbol->st_info) == STT_TLS)
    return hr_refuse(error, HR_UNSUPPORTED, "it imports the thread-local variable %s", name);
  *value = hr_fault(HR_STEP_IMPORT) ? 0 : (uint64_t)find_symbol(c, name, version);
  if (!*value && ELF64_ST_BIND(symbol->st_info) != STB_WEAK)
    return hr_refuse(error, HR_MISSING_IMPORT, "%s%s%s", name, version ? "@" : "", version ? version : "");
  return true;
}

static bool symbol_value(const struct hr_candidate *c, const struct dynamic *d, uint64_t index, uint64_t *value,
                         struct hr_error *error) {
  const Elf64_Sym *symbol = (const Elf64_Sym *)(d->symtab + index * sizeof *symbol);

  if (!index || !d->symtab || !table(c, (uintptr_t)symbol, sizeof *symbol, 8))
    return hr_refuse(error, HR_BAD_PAYLOAD, "a relocation names symbol %" PRIu64 ", which does not exist", index);
  if (symbol->st_shndx == SHN_UNDEF)
    return import(c, d, index, symbol, value, error);
  if (ELF64_ST_TYPE(symbol->st_info) == STT_TLS || ELF64_ST_TYPE(symbol->st_info) == STT_GNU_IFUNC)
    return hr_refuse(error, HR_UNSUPPORTED, "it defines a thread-local variable or an indirect function");
  *value = symbol->st_value + (symbol->st_shndx == SHN_ABS ? 0 : c->loaded.bias);
  return true;
}

static bool relocate_one(const struct hr_candidate *c, const struct dynamic *d, const Elf64_Rela *rela,
                         struct hr_error *error) {
  uint64_t type = ELF64_R_TYPE(rela->r_info), index = ELF64_R_SYM(rela->r_info), value = 0;
  uintptr_t place = c->loaded.bias + rela->r_offset;
  const struct hr_segment *segment = hr_record_segment(c->record, place, sizeof value);

  if (type == HR_RELOC_NONE)
    return true;
  if (hr_fault(HR_STEP_RELOCATE) || !segment || !(segment->prot & PROT_WRITE))
    return hr_refuse(error, HR_BAD_PAYLOAD, "relocation at 0x%" PRIx64 " is not inside its writable segments",
                     rela->r_offset);
  switch (type) {
  case HR_RELOC_RELATIVE:
    value = c->loaded.bias + (uint64_t)rela->r_addend;
    break;
  case HR_RELOC_ABSOLUTE: case HR_RELOC_GOT: case HR_RELOC_PLT:
    if (!symbol_value(c, d, index, &value, error))
      return false;
    if (type == HR_RELOC_ABSOLUTE)
      value += (uint64_t)rela->r_addend;
    break;
  case HR_RELOC_TLS_MODULE:
    if (index || !c->loaded.tls_module)
      return hr_refuse(error, HR_UNSUPPORTED, "it refers to thread-local variables of another image");
    value = c->loaded.tls_module;
    break;
  default:
    return hr_refuse(error, HR_UNSUPPORTED, "relocation type %" PRIu64 " at 0x%" PRIx64, type, rela->r_offset);
  }
  memcpy((void *)place, &value, sizeof value);
  return true;
}

static bool relocate_table(const struct hr_candidate *c, const struct dynamic *d, uintptr_t at, uint64_t size,
                           struct hr_error *error) {
  const Elf64_Rela *rela = (const Elf64_Rela *)at;
  uint64_t i;

  for (i = 0; i < size / sizeof *rela; i++) {
    Elf64_Rela one = rela[i]; /* a copy: the table might lie in what it relocates */

    if (!relocate_one(c, d, &one, error))
      return false;
  }
  return true;
}

static bool fill_tls_modules(const struct hr_candidate *c, struct hr_error *error) {
  const struct hr_payload *header = c->record->header;
  const uint64_t *words = (const uint64_t *)header->tls_modules;
  uint64_t i;

  if (!header->n_tls_modules)
    return true;
  if (header->n_tls_modules > UINT64_MAX / 8 || !table(c, header->tls_modules, header->n_tls_modules * 8, 8))
    return hr_refuse(error, HR_BAD_PAYLOAD, "its table of thread-local modules lies outside its segments");
  if (!c->loaded.tls_module)
    return hr_refuse(error, HR_BAD_PAYLOAD, "it uses thread-local variables, the image has none");
  for (i = 0; i < header->n_tls_modules; i++) {
    const struct hr_segment *segment = hr_record_segment(c->record, words[i], 8);

    if (!segment || !(segment->prot & PROT_WRITE) || words[i] % 8)
      return hr_refuse(error, HR_BAD_PAYLOAD, "a thread-local module word lies outside its writable segments");
    *(uint64_t *)words[i] = c->loaded.tls_module;
  }
  return true;
}

/* What hr_elf_read checked in the file must be what is mapped and now relocated. */
static bool check_header(const struct hr_candidate *c, struct hr_error *error) {
  const struct hr_payload *mapped = c->record->header, *read = &c->elf->header;

  if (memcmp(mapped, read, offsetof(struct hr_payload, redirects)) || mapped->n_redirects != read->n_redirects ||
      mapped->n_updates != read->n_updates || mapped->n_parts != read->n_parts || mapped->n_heads != read->n_heads ||
      mapped->n_tls_modules != read->n_tls_modules ||
      mapped->eh_frame_size != read->eh_frame_size || mapped->n_init_array != read->n_init_array)
    return hr_refuse(error, HR_BAD_PAYLOAD, "its payload header changed while it was read");
  return true;
}

/* The function that initialises new objects must be the payload's own. */
static bool check_initialiser(const struct hr_candidate *c, struct hr_error *error) {
  const struct hr_payload *header = c->record->header;
  const struct hr_segment *code = NULL;

  if (!header->n_init_array)
    return true;
  if (table(c, header->init_array, 8, 8))
    code = hr_record_segment(c->record, *(const uint64_t *)header->init_array, 1);
  return (code && code->prot & PROT_EXEC) ||
         hr_refuse(error, HR_BAD_PAYLOAD, "what initialises its objects is not code of its own");
}

/* Adds the load bias, resolves imports, fills in TLS module ids. Writes only to the payload's own pages. */
bool hr_payload_relocate(struct hr_candidate *c, struct hr_error *error) {
  struct dynamic d = {0};

  return read_dynamic(c, &d, error) && relocate_table(c, &d, d.rela, d.rela_size, error) &&
         relocate_table(c, &d, d.jmprel, d.jmprel_size, error) && check_header(c, error) &&
         fill_tls_modules(c, error) && check_initialiser(c, error);
}

/* RELRO: read-only from here on. */
bool hr_payload_seal(struct hr_candidate *c, struct hr_error *error) {
  struct hr_range relro = c->record->relro;

  if (hr_fault(HR_STEP_SEAL) ||
      (relro.start < relro.end && mprotect((void *)relro.start, relro.end - relro.start, PROT_READ)))
    return hr_refuse(error, HR_NO_MEMORY, "RELRO can't be made read-only: %s", strerror(errno));
  return true;
}

/* ---- unwind tables ------------------------------------------------------------------------------- */

static uint32_t word_at(uintptr_t at) {
  uint32_t word;

  memcpy(&word, (const void *)at, sizeof word);
  return word;
}

/* Lengths, the links from FDE to CIE, and the end mark: what libgcc follows without asking.
 * Layout: Linux Standard Base, "Exception Frames". */
static bool eh_frame_is_sound(uintptr_t start, uint64_t size) {
  uint64_t at = 0;

  while (size - at >= 4) {
    uint64_t length = word_at(start + at), id;

    if (!length)
      return true;
    if (length < 8 || length > size - at - 4)
      return false;
    id = word_at(start + at + 4);
    if (id && (id > at + 4 || !word_at(start + at + 4 - id) || word_at(start + at + 8 - id)))
      return false;
    at += 4 + length;
  }
  return false;
}

/* The unwinders of this process that may meet frames of the payload: the image's own and libgcc_s, which
 * pthread_cancel and backtrace() load on demand, hence the dlopen. */
static void find_unwinders(struct hr_candidate *c) {
  struct hr_record *record = c->record;
  struct hr_unwinder own = c->loaded.image->unwinder, shared = {0};

  record->unwinder_handle = dlopen("libgcc_s.so.1", RTLD_LAZY);
  if (record->unwinder_handle) {
    *(void **)&shared.add = dlsym(record->unwinder_handle, "__register_frame");
    *(void **)&shared.remove = dlsym(record->unwinder_handle, "__deregister_frame");
  }
  if (own.add && own.remove)
    record->unwinders[record->n_unwinders++] = own;
  if (shared.add && shared.remove && shared.add != own.add)
    record->unwinders[record->n_unwinders++] = shared;
}

/* Where the process has no unwinder at all the payload is accepted: nothing could unwind through the old
 * code either, and a payload that throws would fail on its import of _Unwind_RaiseException. */
bool hr_payload_register_unwind(struct hr_candidate *c, struct hr_error *error) {
  const struct hr_payload *header = c->record->header;
  uint32_t i;

  if (!header->eh_frame_size)
    return true;
  if (!hr_record_segment(c->record, header->eh_frame, header->eh_frame_size) ||
      !eh_frame_is_sound(header->eh_frame, header->eh_frame_size))
    return hr_refuse(error, HR_BAD_PAYLOAD, "its unwind table is damaged");
  find_unwinders(c);
  c->record->eh_frame = (void *)header->eh_frame;
  for (i = 0; i < c->record->n_unwinders; i++)
    c->record->unwinders[i].add(c->record->eh_frame);
  if (hr_fault(HR_STEP_UNWIND))
    return hr_refuse(error, HR_INTERNAL, "injected");
  return true;
}

void hr_record_unregister_unwind(struct hr_record *record) {
  uint32_t i;

  for (i = 0; record->eh_frame && i < record->n_unwinders; i++)
    record->unwinders[i].remove(record->eh_frame);
  record->eh_frame = NULL;
}
