// For LD_PRELOAD: fsync and fdatasync wait while the file that STALL_FILE names exists, as on a disk
// that hangs.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

static void wait_while_it_exists(void) {
  const char *file = getenv("STALL_FILE");
  while (file && access(file, F_OK) == 0) usleep(5000);
}

int fsync(int fd) {
  static int (*real)(int);
  if (!real) real = dlsym(RTLD_NEXT, "fsync");
  wait_while_it_exists();
  return real(fd);
}

int fdatasync(int fd) {
  static int (*real)(int);
  if (!real) real = dlsym(RTLD_NEXT, "fdatasync");
  wait_while_it_exists();
  return real(fd);
}
