/* durable.pml: commits that PostgreSQL shows before they are on disk, a crash that undoes them, and who knows the outcome of a COMMIT.
 *
 * One tag, one writer at a time, a store that forgets nothing but with its process. Values are ages, as in peers.pml. What is flushed is
 * the whole log, so one bit says that some commit is visible and not on disk.
 *
 * Switches, as -DNAME=VALUE; those marked ! are mistakes, there to be found.
 *   ASYNC    1: synchronous_commit=off  0: a commit is on disk when it is visible
 *   CRASH    1: PostgreSQL crashes and recovers, any number of times
 *   DIE      1: the writer dies with its cache, and a new process begins
 *   FLUSH    1: a commit that was answered is released when it is on disk  0!: at once
 *   DISK     1: so is one whose answer was lost, when PostgreSQL says that it is over  0!: at once
 *   OUTCOME  1: that is asked of the server itself  0!: of whoever answers, such as a standby that has not heard of it
 *   LOG      1: so is how far the log is  0!: of whoever answers
 *   BEFORE   1: a new process stores nothing until the transactions of before are over  0!: at once
 *   START    1: and on disk  0!: over is enough
 */
#ifndef ASYNC
#define ASYNC 0
#endif
#ifndef CRASH
#define CRASH 0
#endif
#ifndef DIE
#define DIE 0
#endif
#ifndef FLUSH
#define FLUSH 1
#endif
#ifndef DISK
#define DISK 1
#endif
#ifndef OUTCOME
#define OUTCOME 1
#endif
#ifndef LOG
#define LOG 1
#endif
#ifndef BEFORE
#define BEFORE 1
#endif
#ifndef START
#define START 1
#endif

bit dirty;              /* the tag has an intent */
bit inprog;             /* a COMMIT was sent and is not visible */
bit unflushed;          /* something is visible and not on disk */
byte cold;              /* a new process waits: 2 for transactions, 1 for the log */
byte entry, value;      /* the entry, and what a SELECT under way has read: 0 none, 1 current, 2 out of date */

#define ONDISK (!unflushed || !LOG)

inline forget() { entry=0; value=0 }     /* the stamp is dead: nothing that was read under it is valid */

inline dies() { dirty=0; forget(); cold=2; printf("EV the process dies, a new one begins\n") }

inline age() {
  if :: entry!=0 -> entry=2 :: else fi;
  if :: value!=0 -> value=2 :: else fi
}

proctype Writer() {
next:
end_next:
  atomic { dirty=1; forget(); printf("EV intend\n") }
end_locked:
  atomic { !inprog -> inprog=1; printf("EV COMMIT is sent\n") }
  if
  :: atomic { !inprog -> printf("EV COMMIT is answered\n") }
end_flush:
     if
     :: atomic { !FLUSH || ONDISK -> dirty=0; forget(); printf("EV release\n") }
     :: atomic { DIE -> dies() }
     fi
  :: atomic { skip -> printf("EV the answer is lost\n") }
     if
     :: atomic { !inprog || !OUTCOME -> printf("EV \"it is over\"\n") }
end_disk:
        if
        :: atomic { !DISK || ONDISK -> dirty=0; forget(); printf("EV the resolver releases\n") }
        :: atomic { DIE -> dies() }
        fi
     :: atomic { DIE -> dies() }
     fi
  :: atomic { DIE -> dies() }
  fi;
  goto next
}

proctype Reader() {
end:
  do
  :: atomic { cold==2 && (!inprog || !BEFORE) -> cold=1 }
  :: atomic { cold==1 && (ONDISK || !START) -> cold=0; printf("EV the new process is warm\n") }
  :: atomic { !dirty && !cold && entry==0 && value==0 -> value=1; printf("EV SELECT\n") }
  :: atomic { value!=0 -> entry=value; value=0; printf("EV fill, out of date %d\n", entry==2) }
  :: atomic { !dirty && entry!=0 -> printf("EV HIT, out of date %d\n", entry==2); assert(entry!=2) }
  od
}

proctype PostgreSQL() {
end:
  do
  :: atomic { inprog -> inprog=0; age(); unflushed=(unflushed || ASYNC); printf("EV COMMIT is visible\n") }
  :: atomic { inprog -> inprog=0 }
  :: atomic { unflushed -> unflushed=0; printf("EV the log is flushed\n") }
  :: atomic { CRASH && (unflushed || inprog) -> inprog=0; printf("EV a crash, which undoes %d\n", unflushed);
       if :: unflushed -> age(); unflushed=0 :: else fi }
  od
}

init { atomic { run Writer(); run Reader(); run PostgreSQL() } }
