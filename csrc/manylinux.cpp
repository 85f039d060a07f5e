// With -DTG_MANYLINUX=ON: the wheel asks for no symbol younger than glibc 2.28 and gcc 8's libstdc++ (manylinux_2_28),
// whatever the headers of the machine it is built on name. Each definition here is found by the linker before the
// library's, serves this extension alone, and calls what the older libraries have, too.
#include <pthread.h>
#include <time.h>

#include <sstream>
#include <string>

// older_NAME calls NAME of that version; newer_NAME is what the others' calls of NAME become.
#define TG_OLDER(result, name, version, ...)             \
  __asm__(".symver older_" #name "," #name "@" version); \
  extern "C" result older_##name(__VA_ARGS__)
#define TG_NEWER(result, name, ...)                                                               \
  __attribute__((visibility("hidden"))) result newer_##name(__VA_ARGS__) noexcept __asm__(#name); \
  result newer_##name

// Of glibc 2.29 are the forms without the old handling of errors; the numbers are the same.
TG_OLDER(double, exp, "GLIBC_2.2.5", double);
TG_OLDER(double, log, "GLIBC_2.2.5", double);
TG_OLDER(double, pow, "GLIBC_2.2.5", double, double);
TG_NEWER(double, exp, double)(double x) noexcept { return older_exp(x); }
TG_NEWER(double, log, double)(double x) noexcept { return older_log(x); }
TG_NEWER(double, pow, double, double)(double x, double y) noexcept { return older_pow(x, y); }

// Of 2.34, when the threads moved into libc.
TG_OLDER(int, pthread_mutex_trylock, "GLIBC_2.2.5", pthread_mutex_t*);
TG_NEWER(int, pthread_mutex_trylock, pthread_mutex_t*)(pthread_mutex_t* m) noexcept {
  return older_pthread_mutex_trylock(m);
}

// Of 2.30: waiting by another clock than the condition's. What is left of it, by the condition's.
TG_NEWER(int, pthread_cond_clockwait, pthread_cond_t*, pthread_mutex_t*, clockid_t, const timespec*)
(pthread_cond_t* condition, pthread_mutex_t* m, clockid_t clock, const timespec* until) noexcept {
  constexpr long kSecond = 1000000000;
  timespec now, deadline;
  clock_gettime(clock, &now);
  clock_gettime(CLOCK_REALTIME, &deadline);
  deadline.tv_sec += until->tv_sec - now.tv_sec;
  deadline.tv_nsec += until->tv_nsec - now.tv_nsec;
  for (; deadline.tv_nsec < 0; deadline.tv_nsec += kSecond) --deadline.tv_sec;
  for (; deadline.tv_nsec >= kSecond; deadline.tv_nsec -= kSecond) ++deadline.tv_sec;
  return pthread_cond_timedwait(condition, m, &deadline);
}

// Of 2.32: shared_ptr counts without atomics while there is one thread. There always are several.
extern "C" {
__attribute__((visibility("hidden"))) char __libc_single_threaded = 0;
}

// Of gcc 11: str() const& of C++20, which is str() const.
std::string older_str(const std::stringbuf*) __asm__("_ZNKSt7__cxx1115basic_stringbufIcSt11char_traitsIcESaIcEE3strEv");
__attribute__((visibility("hidden"))) std::string newer_str(const std::stringbuf*) __asm__(
    "_ZNKRSt7__cxx1115basic_stringbufIcSt11char_traitsIcESaIcEE3strEv");
std::string newer_str(const std::stringbuf* b) { return older_str(b); }
