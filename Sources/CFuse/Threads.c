#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "Threads.h"

#include <pthread.h>
#include <signal.h>

int lethefs_start_thread(struct lethefs_thread how, pthread_t *thread, void *(*body)(void *), void *argument) {
    pthread_t unnamed;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, how.stack);
    if (how.is_detached) pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigset_t blocked, before;
    sigfillset(&blocked);
    if (how.signal != 0) sigdelset(&blocked, how.signal);
    pthread_sigmask(SIG_SETMASK, &blocked, &before);
    int error = pthread_create(thread != NULL ? thread : &unnamed, &attributes, body, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return -error;
}
