/* The wall between the process and the tool: everything that both sides must agree on.
 * Python reads this layout in hotreload_tool/abi.py; tests/unit/test_abi.py holds the two equal.
 * All integers are little-endian. Bump HR_ABI when anything here changes meaning. */
#ifndef HOTRELOAD_ABI_H
#define HOTRELOAD_ABI_H

#include <stdint.h>

#define HR_ABI 4

/* ---- payload: what a bundle brings into one image -------------------------------------------
 * A payload is an ELF shared object linked at arena addresses, relative to the image it patches.
 * Its e_entry is the (image-relative) address of its hr_payload. Pointers in the tables are
 * ordinary relocated pointers: absolute once the agent has added the image's load bias. */
#define HR_PAYLOAD_MAGIC 0x31444c5059415052u /* "RPAYPLD1" */
#define HR_ID_SIZE 32
#define HR_BUILD_ID_MAX 32

struct hr_redirect {     /* one changed function */
  uint64_t slot;         /* pointer to the slot its stub jumps through */
  uint64_t old_target;   /* what the slot must hold before */
  uint64_t new_target;   /* what it holds after: an address inside this payload */
  uint64_t old_size;     /* bytes of code at old_target */
  uint64_t new_size;     /* bytes of code at new_target */
};

/* Code that belongs to a redirect's old function and lies elsewhere: its .cold half, clones that only it reaches.
 * A thread that is in there is in the old function. */
struct hr_part {
  uint64_t start;        /* pointer to the first byte */
  uint64_t size;         /* bytes */
  uint64_t redirect;     /* index of the redirect */
};

/* The head of a function that is called at its own entry: two bytes of the image's code, an instruction that does
 * nothing until it is made a jump to the stub before the entry. It must be one before the slot can have an effect.
 * In the order of their redirects, of which each has one at most. */
struct hr_head {
  uint64_t at;           /* pointer to the two bytes */
  uint64_t redirect;     /* index of the redirect whose slot the stub jumps through */
};

enum hr_update_flags {
  HR_UPDATE_CONSTANT = 1, /* must hold the old content, takes the new */
  HR_UPDATE_MERGE = 2,    /* takes the new content if it still holds the old, else is kept */
  HR_UPDATE_THREADS = 4,  /* initial values in the program's TLS segment; all threads that run take them too */
};

struct hr_update {       /* bytes of an existing object that take new content in place */
  uint64_t address;      /* pointer to the first byte */
  uint64_t old_content;  /* pointer to `size` bytes inside this payload */
  uint64_t new_content;  /* pointer to `size` bytes inside this payload */
  uint64_t size;
  uint64_t flags;
};

enum hr_payload_flags {
  /* Nothing outside of this payload is ever given the address of anything in it but by its redirects: it brings no
   * function that was not there, no variable, no constant that the program could keep a pointer to. */
  HR_PAYLOAD_TRANSIENT = 1,
};

struct hr_payload {
  uint64_t magic;
  uint32_t abi;               /* HR_ABI of the tool that made it */
  uint32_t size;              /* sizeof(struct hr_payload) */
  uint64_t generation;        /* 1 for the first patch of an image */
  uint8_t id[HR_ID_SIZE];     /* names this payload */
  uint8_t parent[HR_ID_SIZE]; /* id of generation - 1; zeros for generation 1 */
  uint8_t build_id[HR_BUILD_ID_MAX]; /* of the image, zero-padded */
  uint32_t build_id_size;
  uint32_t flags;             /* enum hr_payload_flags */
  uint64_t redirects, n_redirects;     /* pointer to, count of struct hr_redirect */
  uint64_t updates, n_updates;         /* pointer to, count of struct hr_update */
  uint64_t eh_frame, eh_frame_size;    /* zero-terminated .eh_frame; 0, 0 if none */
  uint64_t tls_modules, n_tls_modules; /* pointer to, count of pointers to words that take the image's TLS module id */
  uint64_t init_array, n_init_array;   /* pointer to, count (0 or 1) of `int (*)(char *said, uint64_t size)`:
                                        * initialises the new objects; not 0: an exception left it, as `said` tells */
  uint64_t parts, n_parts;             /* pointer to, count of struct hr_part */
  uint64_t heads, n_heads;             /* pointer to, count of struct hr_head */
};

/* At the end of a signed payload file, behind all that ELF knows of: Ed25519 (RFC 8032) over HR_SIGNED_PREFIX with its
 * final zero, and the SHA-512 of the file up to here. */
#define HR_SIGNATURE_MAGIC "HRSIGN\0\1"
#define HR_SIGNED_PREFIX "hotreload payload"
#define HR_KEY_SIZE 32
#define HR_SIGNATURE_SIZE 64

struct hr_signature {
  uint8_t magic[8];
  uint8_t key[HR_KEY_SIZE]; /* the public one */
  uint8_t signature[HR_SIGNATURE_SIZE];
};

/* ---- image note: how an agent finds instrumented images --------------------------------------
 * PT_NOTE with owner "hotreload", type HR_NOTE_IMAGE; its descriptor is one int64: the distance
 * from the descriptor's own address to the image's struct hr_image. */
#define HR_NOTE_IMAGE 1
#define HR_IMAGE_MAGIC 0x31474d49u /* "IMG1" */

/* What struct hr_image begins with, in every HR_ABI (runtime/internal.h has the rest). Tools find the arena of a
 * linked image by it. Pointers are absolute in the process, relocated in the file. */
struct hr_image_head {
  uint32_t magic;
  uint32_t abi;
  int32_t owner_pid;    /* the process in which this image's copy of the runtime is the agent, else 0 */
  uint32_t ready;       /* the arena is prepared */
  uint64_t poll_mode;   /* pointer to an int: not 0 if no thread may be started for this image */
  uint64_t arena_start; /* page-aligned range */
  uint64_t arena_end;
};

/* ---- requests over the socket ------------------------------------------------------------------
 * SOCK_STREAM in the runtime directory, file PID.sock. A request is one struct hr_request, sent with
 * n_payloads read-only descriptors (SCM_RIGHTS) of payload files; all of them take effect or none.
 * A revert carries payloads only of generations whose code was unmapped and is needed again. The answer is one
 * struct hr_reply and `length` bytes of JSON. */
#define HR_REQUEST_MAGIC 0x31515248u /* "HRQ1" */
#define HR_REPLY_MAGIC 0x31505248u   /* "HRP1" */
#define HR_MAX_PAYLOADS 64
#define HR_MAX_GUARD_MS 3600000u

enum hr_op { HR_OP_STATUS = 1, HR_OP_APPLY = 2, HR_OP_REVERT = 3 };
enum hr_when { HR_WHEN_NOW = 0, HR_WHEN_QUIESCENT = 1, HR_WHEN_SAFEPOINT = 2 };
enum hr_request_flags {
  HR_DRY_RUN = 1,
  HR_TOGETHER = 2,
  HR_FOR_LATER = 4, /* payloads for libraries that are not loaded are kept; who loads one later takes them */
};

struct hr_request {
  uint32_t magic;
  uint16_t abi;
  uint16_t op;
  uint32_t flags;
  uint32_t when;
  uint32_t timeout_ms;
  uint32_t n_payloads;
  uint64_t generation;                /* revert: that is to be live afterwards; else 0 */
  uint8_t build_id[HR_BUILD_ID_MAX];  /* revert: of the image, zero-padded; else zeros */
  uint64_t guard_ms;                  /* apply: for so long a crash in new code takes it back; 0: no guard */
};

struct hr_reply {
  uint32_t magic;
  uint16_t abi;
  uint16_t code;   /* enum hr_code */
  uint32_t length; /* bytes of JSON that follow */
};

/* ---- several processes that take a patch together ----------------------------------------------
 * With HR_TOGETHER one more descriptor comes behind those of the payloads: a file of memfd_create() that holds a
 * struct hr_ballot and is sealed against shrinking. All processes that are asked get the same one, and change `state`
 * atomically; it is a futex. Bits 0 to 11: how many are ready, 12 to 29: in which round, 30 and 31: the decision.
 * In round 0 a process is ready when it is prepared, and round 1 begins when all are. In a later round it is ready
 * when it could commit now; the one that makes all of them ready changes the word to HR_COMMITTED instead. */
#define HR_BALLOT_MAGIC 0x31425248u /* "HRB1" */
#define HR_BALLOT_READY 0xfffu
#define HR_BALLOT_ROUND_SHIFT 12
#define HR_BALLOT_DECISION_SHIFT 30

enum hr_decision { HR_UNDECIDED = 0, HR_COMMITTED = 1, HR_ABANDONED = 2 };

struct hr_ballot {
  uint32_t magic;
  uint32_t members;   /* processes that are asked: 1 to HR_BALLOT_READY */
  uint32_t withdrawn; /* set to 1 by the tool: decide against it, unless it is decided */
  uint32_t state;     /* 0 at first */
};

enum hr_code {
#define HR_CODE(name, number, exit_code, text) HR_##name = number,
#include "hr_codes.def"
#undef HR_CODE
};

#endif
