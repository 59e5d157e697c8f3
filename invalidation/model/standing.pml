/* standing.pml: a mark that stands. Of a tag that nobody reads from the cache the store keeps it dirty, and commits that
 * know of that mark nothing. The code does not do so yet; this is what it would have to keep.
 *
 * One tag, one entry that depends on it. Each writer is a process: it asks the store now and then whether the tag stands, and relies on
 * the answer for less than a Lease. Values are ages, as in core.pml. Time is as in epoch.pml: who waits one Lease from an instant on
 * knows that nobody relies any more on an answer to a question of before. They may stop sooner.
 *
 * Switches, as -DNAME=VALUE; those marked ! are mistakes, there to be found.
 *   NW       writers
 *   CRASH    1: writers die, their COMMIT sent or not
 *   LOSS     1: the store loses everything
 *   DDL      1: the tag that stands is of a table that a view was of; a DDL makes it one of the entry's, and a writer may have planned before
 *   WAIT     1: who ends a standing mark waits a Lease  0!: does not
 *   HORIZON  1: and then for the transactions of then  0!: does not  2!: takes them first, and waits then
 *   CHECK    1: a writer looks whether it may rely when its transaction has its id  0!: before it has
 *   COUNT    1: an answer counts from before its question  0!: from when it is there
 *   ANEW     1: a new epoch waits a Lease before it takes its horizon  0!: takes it at once
 *   PATIENT  1: a DDL waits a Lease between its mark and its COMMIT  0!: does not
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
#ifndef WAIT
#define WAIT 1
#endif
#ifndef HORIZON
#define HORIZON 1
#endif
#ifndef CHECK
#define CHECK 1
#endif
#ifndef COUNT
#define COUNT 1
#endif
#ifndef ANEW
#define ANEW 1
#endif
#ifndef PATIENT
#define PATIENT 1
#endif

/* The store. Sets of writers are bit masks. */
bit stands, ending;     /* the mark, and that nobody may begin to rely on it */
byte dirty;             /* intents on the tag of the entry */
bit lease = 1;          /* hits and stamps need it */
byte entry;             /* 0 none, 1 current, 2 out of date */
byte value; bit fresh;  /* what a SELECT under way has read, and whether its stamp stands */

/* PostgreSQL. */
byte running;           /* writers whose transaction has an id and is in progress */
byte horizon;           /* those that are waited for */
bit new, catalog, lock; /* the DDL is visible; the catalog tag is marked; the DDL has the lock of the view */

/* What the writers know. */
byte asking, told, late, relies;

byte ends;              /* how far the end of the standing mark is */
byte cold;              /* how far a new epoch is */

#define DIRTY (dirty!=0 || (stands && !DDL))

inline kill() { entry=0; fresh=0; if :: value!=0 -> value=1 :: else fi }
inline wait() { relies=0; late=asking }
inline visible() {
  if :: entry!=0 -> entry=2 :: else fi;
  if :: value!=0 && fresh -> value=2 :: else fi;
  printf("EV COMMIT is visible\n")
}

proctype Reader() {
end:
  do
  :: atomic { lease && !DIRTY && !catalog && entry!=0 -> printf("EV HIT, out of date %d\n", entry==2); assert(entry!=2) }
  :: atomic { lease && !DIRTY && !catalog && value==0 -> value=1; fresh=1; printf("EV SELECT\n") }
  :: atomic { value!=0 -> if :: fresh -> entry=value; printf("EV fill, out of date %d\n", entry==2) :: else fi; value=0; fresh=0 }
  od
}

proctype Stander() {    /* nobody gains, and then somebody wants to */
end:
  do
  :: atomic { !stands && cold==0 -> stands=1; ending=0; ends=0; if :: !DDL -> kill() :: else fi; printf("EV the mark stands\n") }
  :: atomic { stands && !ending && !DDL -> ending=1; ends=1; printf("EV the mark is to end\n");
       if :: HORIZON==2 -> horizon=running :: else fi }
  :: atomic { ends==1 -> ends=2; if :: WAIT -> wait(); printf("EV a Lease later\n") :: else fi;
       if :: HORIZON==1 -> horizon=running :: else fi }
  :: atomic { ends==2 && (HORIZON==0 || horizon==0) -> ends=0; ending=0; stands=0; kill(); printf("EV the mark is gone\n") }
  od
}

proctype Keeper() {     /* a store that has lost everything, intents too, begins an epoch */
end:
  do
  :: atomic { LOSS -> stands=0; ending=0; ends=0; dirty=0; lease=0; kill(); cold=1; printf("EV the store loses everything\n") }
  :: atomic { cold==1 -> cold=2; if :: ANEW -> wait(); printf("EV a Lease later\n") :: else fi; horizon=running }
  :: atomic { cold==2 && horizon==0 -> cold=0; lease=1; kill(); printf("EV a lease\n") }
  od
}

proctype Asker(byte b) {
end:
  do
  :: atomic { (asking&b)==0 -> asking=asking|b; late=late&~b;
       if :: stands && !ending && !catalog && !(DDL && new) -> told=told|b :: else -> told=told&~b fi }
  :: atomic { (asking&b)!=0 -> asking=asking&~b;
       if :: (told&b)!=0 && (!COUNT || (late&b)==0) -> relies=relies|b; printf("EV writer %d relies on it\n", b)
          :: else -> relies=relies&~b fi; told=told&~b; late=late&~b }
  :: atomic { (relies&b)!=0 -> relies=relies&~b }
  od
}

inline over(b) { running=running&~b; horizon=horizon&~b }

proctype Writer(byte b) {
  bit marked, sure, planned, hits;
next:
end_next:
  atomic { marked=0; sure=0; hits=0; planned=new }
  if
  :: atomic { CHECK==0 -> sure=(relies&b)!=0 }
  :: CHECK!=0
  fi;
end_exec:
  atomic { !lock -> running=running|b; hits=!DDL || new; printf("EV writer %d writes\n", b) }
  atomic {
    if
    :: CHECK==0
    :: CHECK!=0 -> sure=(relies&b)!=0 && planned==0
    fi;
    if
    :: sure -> printf("EV writer %d relies on the mark that stands\n", b)
    :: !sure && (!DDL || planned || new || catalog) -> marked=1; dirty=dirty|b; kill(); printf("EV writer %d marks\n", b)
    :: !sure && DDL && !planned && !new && !catalog -> skip     /* the other table's tag */
    fi
  }
  if
  :: atomic { if :: hits -> visible() :: else fi; over(b) }
  :: atomic { over(b); printf("EV writer %d rolled back\n", b) }
  :: atomic { CRASH -> relies=relies&~b; asking=asking&~b; told=told&~b; printf("EV writer %d is gone\n", b) };
     if
     :: atomic { if :: hits -> visible() :: else fi; over(b) }
     :: atomic { over(b) }
     fi
  fi;
  atomic { if :: marked -> dirty=dirty&~b; kill() :: else fi; goto next }
}

proctype Changer() {
end:
  atomic { DDL && running==0 -> lock=1 };
  atomic { catalog=1; kill(); printf("EV the DDL marks the catalog\n") };
  atomic { if :: PATIENT -> wait(); printf("EV a Lease later\n") :: else fi };
  atomic { new=1; lock=0; printf("EV the DDL is visible\n") };
  atomic { catalog=0; kill() }
}

init { atomic {
  run Reader(); run Stander(); run Keeper();
  run Writer(1); run Asker(1);
  if :: NW>1 -> run Writer(2); run Asker(2) :: else fi;
  run Changer()
} }
