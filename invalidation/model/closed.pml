/* closed.pml: a relation that is closed to the cache, because nobody gains from what is stored of it. Nobody mints stamps of it, so no
 * entry of it can be a hit, and its commits set no intents.
 *
 * One tag, one entry that depends on it. The store's list says how far its relation is: open, closing, closed or opening. Whoever
 * reads, marks or mints meets the list in the same step of the store. Values are ages, as in core.pml.
 *
 * Switches, as -DNAME=VALUE; those marked ! are mistakes, there to be found.
 *   NW       writers
 *   CRASH    1: writers die, their COMMIT sent or not
 *   LOSS     1: the store loses everything, the list too
 *   DDL      1: the relation is another one than the entry's, until a DDL makes a view of it the entry's; a writer may have planned before
 *   REFUSE   1: a relation that is closing lets nobody mint         0!: it does so until it is closed
 *   SWEEP    1: it is closed when the stamps of before are gone     0!: at once
 *   HORIZON  1: it opens when the writes are over that were under way after it had said so   0!: at once  2!: takes them before it says so
 *   CHECK    1: a writer meets the list when its transaction has its id  0!: before it has
 *   NOW      1: a writer relies on what the list says when it marks 0!: on what the list said when it asked last
 *   BEGIN    1: a new epoch waits for the writes under way          0!: only for those that have marks to lose
 *   COMPARE  1: a writer compares the catalog that it planned with, also where it sets no intent  0!: it does not
 */
#ifndef NW
#define NW 1
#endif
#ifndef CRASH
#define CRASH 0
#endif
#ifndef LOSS
#define LOSS 0
#endif
#ifndef DDL
#define DDL 0
#endif
#ifndef REFUSE
#define REFUSE 1
#endif
#ifndef SWEEP
#define SWEEP 1
#endif
#ifndef HORIZON
#define HORIZON 1
#endif
#ifndef CHECK
#define CHECK 1
#endif
#ifndef NOW
#define NOW 1
#endif
#ifndef BEGIN
#define BEGIN 1
#endif
#ifndef COMPARE
#define COMPARE 1
#endif

#define OPEN 0
#define CLOSING 1
#define CLOSED 2
#define OPENING 3

/* The store. Sets of writers are bit masks. With DDL the list is of the other relation, which has no stamps. */
byte list;
bit lease = 1;          /* hits and stamps need it */
byte dirty;             /* intents on the tag of the entry */
bit schema;             /* an intent on the schema tag */
bit stamp;              /* the tag has one */
byte entry;             /* 0 none, 1 current, 2 out of date; it has the stamp that is there */
byte value; bit fresh;  /* what a SELECT under way has read, and whether it has that stamp too */

/* PostgreSQL. */
byte running;           /* writers whose transaction has an id and is in progress */
byte horizon;           /* those that are waited for */
bit new, catalog, lock; /* the DDL is visible; the catalog tag is marked; the DDL has the lock of the view */

byte knows;             /* writers that were told, when they asked last, that the relation is closed */
byte cold;              /* how far a new epoch is */
byte steps;             /* how far the opening is */

#define DIRTY (dirty!=0 || schema || catalog)
#define MINTS (DDL || list==OPEN || (!REFUSE && list==CLOSING))

inline kill() { stamp=0; entry=0; fresh=0 }
inline visible() {
  if :: entry!=0 -> entry=2 :: else fi;
  if :: value!=0 -> value=2 :: else fi;
  printf("EV COMMIT is visible\n")
}

proctype Reader() {
end:
  do
  :: atomic { lease && !DIRTY && stamp && entry!=0 -> printf("EV HIT, out of date %d\n", entry==2); assert(entry!=2) }
  :: atomic { lease && !DIRTY && value==0 && (stamp || MINTS) -> stamp=1; value=1; fresh=1; printf("EV mints, SELECT\n") }
  :: atomic { value!=0 -> if :: fresh -> entry=value; printf("EV fill, out of date %d\n", value==2) :: else fi; value=0; fresh=0 }
  od
}

proctype Keeper() {
end:
  do
  :: atomic { list==OPEN && cold==0 -> list=CLOSING; steps=0; printf("EV closing\n") }
  :: atomic { list==CLOSING && steps==0 -> steps=1; if :: !DDL && SWEEP -> kill(); printf("EV stamps are gone\n") :: else fi }
  :: atomic { list==CLOSING && steps==1 -> list=CLOSED; steps=0; printf("EV closed\n") }
  :: atomic { list==CLOSED && HORIZON==2 && steps==0 -> horizon=running; steps=3 }
  :: atomic { list==CLOSED && (HORIZON!=2 || steps==3) -> list=OPENING; steps=1; printf("EV opening\n") }
  :: atomic { list==OPENING && steps==1 -> steps=2; if :: HORIZON==1 -> horizon=running :: else fi }
  :: atomic { list==OPENING && steps==2 && (HORIZON==0 || horizon==0) -> steps=0; list=OPEN; printf("EV open\n") }
  :: atomic { LOSS -> list=OPEN; steps=0; dirty=0; schema=0; lease=0; kill(); cold=1; printf("EV the store loses everything\n") }
  :: atomic { cold==1 -> cold=2; horizon=(BEGIN -> running : 0) }
  :: atomic { cold==2 && horizon==0 -> cold=0; lease=1; kill(); printf("EV a lease\n") }
  od
}

inline over(b) { running=running&~b; horizon=horizon&~b }

proctype Writer(byte b) {
  bit marked, unsure, early, planned, hits;
next:
end_next:
  atomic { marked=0; unsure=0; hits=0; early=0; planned=new; if :: list==CLOSED -> knows=knows|b :: knows=knows&~b fi }
  if
  :: atomic { CHECK==0 -> early=list==CLOSED }
  :: CHECK!=0
  fi;
end_exec:
  atomic { !lock -> running=running|b; hits=!DDL || new; printf("EV writer %d writes\n", b) }
  atomic {       /* planned before the DDL, it knows of the other relation alone */
    unsure=DDL && (catalog || planned!=new);
    if
    :: !(DDL && planned) && ((!CHECK && early) || (CHECK && NOW && list==CLOSED) || (CHECK && !NOW && (knows&b)!=0)) ->
         printf("EV writer %d sets no intent\n", b); if :: !COMPARE -> unsure=0 :: else fi
    :: else -> if :: !DDL || planned -> marked=1; dirty=dirty|b; kill(); printf("EV writer %d marks\n", b) :: else fi
    fi;
    if :: unsure -> schema=1; kill(); printf("EV writer %d marks the schema tag\n", b) :: else fi
  }
  if
  :: atomic { if :: hits -> visible() :: else fi; over(b) }
  :: atomic { over(b); printf("EV writer %d rolled back\n", b) }
  :: atomic { CRASH -> printf("EV writer %d is gone\n", b) };
     if
     :: atomic { if :: hits -> visible() :: else fi; over(b) }
     :: atomic { over(b) }
     fi
  fi;
  atomic { if :: marked -> dirty=dirty&~b; kill() :: else fi; if :: unsure -> schema=0; kill() :: else fi; goto next }
}

proctype Changer() {
end:
  atomic { DDL && running==0 -> lock=1 };
  atomic { catalog=1; kill(); printf("EV the DDL marks the catalog\n") };
  atomic { new=1; lock=0; printf("EV the DDL is visible\n") };
  atomic { catalog=0; kill() }
}

init { atomic {
  run Reader(); run Keeper();
  run Writer(1);
  if :: NW>1 -> run Writer(2) :: else fi;
  run Changer()
} }
