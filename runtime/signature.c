/* Which payloads come from somebody that the images of this process trust.
 *
 * An image that was built with HOTRELOAD_TRUSTED_KEYS takes only payloads that one of these keys signed, and since code
 * may do anything once it runs, so does every process that such an image is loaded in. The signature is at the end of
 * the payload file (struct hr_signature), so it goes wherever the payload goes. What was checked is a copy that nobody
 * can change any more, and all that is read and mapped afterwards is read from there.
 *
 * The check itself is libsodium's. Its sodium_init() is not called: it opens files and seeds a generator of random
 * numbers, and neither hashing nor the check of a signature needs either. */
#include "internal.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- of one image: its own keys ------------------------------------------------------------------------ */

#ifdef HOTRELOAD_TRUSTED_KEYS
#if !__has_include(<sodium.h>)
#error "HOTRELOAD_TRUSTED_KEYS needs the header of libsodium: install libsodium-dev, or build without trusted keys"
#endif
#include <sodium.h>

static const uint8_t keys[] = {HOTRELOAD_TRUSTED_KEYS}; /* one behind the other */

_Static_assert(sizeof keys % HR_KEY_SIZE == 0, "whole keys");
_Static_assert(HR_KEY_SIZE == crypto_sign_PUBLICKEYBYTES && HR_SIGNATURE_SIZE == crypto_sign_BYTES,
               "as Ed25519 has them (RFC 8032)");

static bool is_trusted(const uint8_t *key) {
  size_t i;

  for (i = 0; i < sizeof keys; i += HR_KEY_SIZE)
    if (!memcmp(keys + i, key, HR_KEY_SIZE))
      return true;
  return false;
}

/* What is signed: a prefix that nothing else begins with, and the SHA-512 of the payload up to its signature. */
static bool is_signed(const uint8_t *content, size_t size, const struct hr_signature *signature) {
  uint8_t message[sizeof HR_SIGNED_PREFIX + crypto_hash_sha512_BYTES] = HR_SIGNED_PREFIX;

  crypto_hash_sha512(message + sizeof HR_SIGNED_PREFIX, content, size);
  return !crypto_sign_verify_detached(signature->signature, message, sizeof message, signature->key);
}

static enum hr_trust trusts(const uint8_t *content, size_t size) {
  struct hr_signature signature;

  if (size < sizeof signature)
    return HR_TRUST_UNSIGNED;
  memcpy(&signature, content + size - sizeof signature, sizeof signature);
  if (memcmp(signature.magic, HR_SIGNATURE_MAGIC, sizeof signature.magic))
    return HR_TRUST_UNSIGNED;
  if (!is_trusted(signature.key))
    return HR_TRUST_OTHER_KEY;
  return is_signed(content, size - sizeof signature, &signature) ? HR_TRUST_GOOD : HR_TRUST_FORGED;
}

hr_trusts *const hr_own_trusts = trusts;
#else
hr_trusts *const hr_own_trusts = NULL;
#endif

/* ---- of the process: what all its images say ----------------------------------------------------------------- */

struct question {
  const uint8_t *content; /* null: only whether anybody asks for signatures */
  size_t size;
  bool wanted;
  enum hr_trust answer;
};

static bool ask_image(const struct hr_loaded *loaded, void *context) {
  struct question *question = context;

  if (loaded->image->abi != HR_ABI || !loaded->image->trusts)
    return true;
  question->wanted = true;
  if (question->content)
    question->answer = loaded->image->trusts(question->content, question->size);
  return question->answer == HR_TRUST_GOOD;
}

static bool refuse(enum hr_trust trust, struct hr_error *error) {
  switch (trust) {
  case HR_TRUST_UNSIGNED:
    return hr_refuse(error, HR_UNTRUSTED, "it is not signed; sign the bundle with `hotpatch sign`");
  case HR_TRUST_OTHER_KEY:
    return hr_refuse(error, HR_UNTRUSTED, "it is signed by a key that an image of this process does not trust");
  default:
    return hr_refuse(error, HR_UNTRUSTED, "its signature is not of these bytes: it was changed after it was signed");
  }
}

static bool copy_all(int from, int to, struct hr_error *error) {
  struct stat stat;

  if (fstat(from, &stat) || !S_ISREG(stat.st_mode) || stat.st_size <= 0 || (uint64_t)stat.st_size > HR_MAX_PAYLOAD)
    return hr_refuse(error, HR_BAD_PAYLOAD, "not a regular file of a size that a payload can have");
  return hr_copy_bytes(from, to, 0, (uint64_t)stat.st_size, error) && hr_copy_seal(to, error);
}

static bool check_copy(int copy, struct hr_error *error) {
  struct question question = {.answer = HR_TRUST_GOOD};
  struct stat stat;
  void *content;

  if (fstat(copy, &stat))
    return hr_refuse(error, HR_NO_MEMORY, "the copy of the payload has no size: %s", strerror(errno));
  content = mmap(NULL, (size_t)stat.st_size, PROT_READ, MAP_PRIVATE, copy, 0);
  if (content == MAP_FAILED)
    return hr_refuse(error, HR_NO_MEMORY, "no memory to check the payload's signature: %s", strerror(errno));
  question.content = content;
  question.size = (size_t)stat.st_size;
  hr_each_image(ask_image, &question);
  munmap(content, (size_t)stat.st_size);
  return question.answer == HR_TRUST_GOOD || refuse(question.answer, error);
}

/* The descriptor that the payload is to be read from: `file` where no image asks for signatures, else a copy whose
 * signature is good, to be closed by the caller; -1: refused. */
int hr_signed_content(int file, struct hr_error *error) {
  struct question question = {.answer = HR_TRUST_GOOD};
  bool fails = hr_fault(HR_STEP_SIGNED);
  int copy;

  hr_each_image(ask_image, &question);
  if (!question.wanted && !fails)
    return file;
  if (fails) {
    hr_refuse(error, HR_NO_MEMORY, "no file in memory to check the payload's signature: %s", strerror(errno));
    return -1;
  }
  copy = hr_copy_new(file, error);
  if (copy < 0)
    return -1;
  if (copy_all(file, copy, error) && check_copy(copy, error))
    return copy;
  close(copy);
  return -1;
}
