/* peers.pml: a process with a cache, and one that writes and does not mark there: its cache is another, or of another format, or it has none.
 *
 * All that the two share are locks in PostgreSQL. Values are ages, as in core.pml. Time is as in epoch.pml: who waits one Lease from an
 * instant on knows that hits which were allowed by a question before that instant are over. Hits may be over sooner.
 *
 * Switches, as -DNAME=VALUE; those marked ! are mistakes, there to be found.
 *   CRASH    1: the writer dies, its COMMIT sent or not
 *   DROP     1: PostgreSQL drops the writer's lock, and the writer does not know for less than a Lease
 *   SHOW     1: both show themselves before they look  0!: the cache looks first  2!: the writer looks first
 *   WAIT     1: the writer waits a Lease if it sees a cache  0!: it does not
 *   GAP      1: a cache that could not hit for a while begins anew  0!: it goes on with what it had
 *   HORIZON  1: a cache that begins anew fills when the transactions of then are over  0!: at once
 *   REST     1: it begins anew no sooner than a Lease after it saw no writer  0!: at once
 */
#ifndef CRASH
#define CRASH 0
#endif
#ifndef DROP
#define DROP 0
#endif
#ifndef SHOW
#define SHOW 1
#endif
#ifndef WAIT
#define WAIT 1
#endif
#ifndef GAP
#define GAP 1
#endif
#ifndef HORIZON
#define HORIZON 1
#endif
#ifndef REST
#define REST 1
#endif

bit cache, writes;      /* the locks */
bit inprog;             /* the writer's transaction is in progress */
bit known;              /* its lock stood less than a Lease ago, as far as it knows */

bit hits;               /* the cache may hit: a question less than a Lease ago saw no writer */
bit asked, alone, late; /* a question is under way; it saw no writer; what it allows is over already */
bit met;                /* it has seen a writer, and has not begun anew since */
bit hz;                 /* what it waits for before it fills */
byte entry, value;      /* the entry, and what a SELECT under way has read: 0 none, 1 current, 2 out of date */

inline anew() { entry=0; value=0; if :: HORIZON -> hz=inprog :: else fi }

proctype Cache() {
end:
  do
  :: atomic { !cache && SHOW!=0 -> cache=1; printf("EV the cache shows itself\n") }
  :: atomic { !asked && (cache || SHOW==0) -> asked=1; late=0; alone=!writes;
       if :: writes -> met=1; hits=0; printf("EV the cache sees a writer\n") :: else -> printf("EV the cache sees no writer\n") fi }
  :: atomic { asked && !alone -> asked=0 }
  :: atomic { asked && alone && met && REST -> asked=0; met=0; known=0; hits=0; printf("EV a Lease later\n") }
  :: atomic { asked && alone && !(met && REST) -> asked=0; cache=1;
       if
       :: late
       :: else -> if :: !hits && GAP -> anew() :: else fi; met=0; hits=1; printf("EV the cache may hit\n")
       fi }
  :: atomic { hits && !hz && entry==0 && value==0 -> value=1; printf("EV SELECT\n") }
  :: atomic { value!=0 -> entry=value; value=0; printf("EV fill, out of date %d\n", entry==2) }
  :: atomic { hits && entry!=0 -> printf("EV HIT, out of date %d\n", entry==2); assert(entry!=2) }
  :: atomic { hits -> hits=0; printf("EV the Lease is over\n") }
  od
}

inline visible() {
  if :: entry!=0 -> entry=2 :: else fi;
  if :: value!=0 -> value=2 :: else fi;
  printf("EV COMMIT is visible\n")
}

proctype Writer() {
  bit seen;
next:
end_next:
  if
  :: atomic { SHOW!=2 -> writes=1; known=1; printf("EV the writer shows itself\n") }
  :: atomic { SHOW==2 -> seen=cache }
  fi;
  if
  :: atomic { SHOW!=2 -> seen=cache }
  :: atomic { SHOW==2 -> writes=1; known=1 }
  fi;
  if
  :: atomic { seen && WAIT -> hits=0; late=1; printf("EV the writer has waited\n") }
  :: atomic { !(seen && WAIT) -> skip }
  fi;
ready:
end_ready:
  if
  :: atomic { known || writes -> inprog=1; known=1 }
  :: atomic { !known && !writes -> goto next }
  :: atomic { writes=0; known=0; printf("EV the writer goes\n"); goto next }
  fi;
  if
  :: atomic { visible(); inprog=0; hz=0; goto ready }
  :: atomic { CRASH -> writes=0; known=0; printf("EV the writer dies\n") }
  fi;
  if
  :: atomic { visible(); inprog=0; hz=0 }
  :: atomic { inprog=0; hz=0 }
  fi;
  goto next
}

/* The lock is gone and the writer does not know, until a Lease after the cache that has met it has seen that. */
proctype World() {
end:
  do
  :: atomic { DROP && writes && met -> writes=0; printf("EV PostgreSQL drops the writer's lock\n") }
  od
}

init { atomic { run Cache(); run Writer(); run World() } }

#ifdef P3
ltl p3 { []<> (1) }
#endif
