/* spare.pml: writers that mark a coarse tag, learn what they have changed, mark a precise one, and spare the coarse one.
 *
 * One entry in one process, which depends on both tags, as a result that names a row does: tag 0 is all rows, tag 1 that row. A stamp is
 * suspended while its tag is dirty. It is alive again when the last writer spares the tag, and dead when one releases it. Looking
 * at the tags of an entry, and reading stamps, takes a step for each tag, in either order. Values are ages, as in core.pml.
 *
 * Switches, as -DNAME=VALUE; those marked ! are mistakes, there to be found.
 *   NR NW    readers, writers
 *   BOTH     1: tag 1 may be the coarse one too, and tag 0 the precise one
 *   CRASH    1: writers do not learn what became of their statement
 *   EVICT    1: stamps and the entry vanish at any time
 *   FLIGHT   1: readers join a SELECT under way for the same stamps
 *   EARLY    1!: the coarse tag is spared before the precise one is marked
 *   WRONG    1!: it is spared although the outcome is not known
 *   RESTORE  1!: the last to spare a tag revives its stamp, although another has released it
 *   ALONE    1!: who spares a tag revives its stamp, although another has an intent
 *   COUNT    1: what was found or read counts only if no spare began meanwhile  0!: it always does  2!: stamps that were read always do
 *   LATE     1!: a spare is counted when it is done
 */
#ifndef NR
#define NR 1
#endif
#ifndef NW
#define NW 1
#endif
#ifndef BOTH
#define BOTH 0
#endif
#ifndef CRASH
#define CRASH 0
#endif
#ifndef EVICT
#define EVICT 0
#endif
#ifndef FLIGHT
#define FLIGHT 0
#endif
#ifndef EARLY
#define EARLY 0
#endif
#ifndef WRONG
#define WRONG 0
#endif
#ifndef RESTORE
#define RESTORE 0
#endif
#ifndef ALONE
#define ALONE 0
#endif
#ifndef COUNT
#define COUNT 1
#endif
#ifndef LATE
#define LATE 0
#endif

#define NOW 128         /* bit of an age: the value is out of date now; bit r: it was when reader r's read began */

/* The store. Sets of writers are bit masks. */
byte stamp[2];          /* of a tag; 0: none */
bit  suspended[2];      /* it is not to be hit or filled with */
byte dirty[2];          /* intents */
byte es[2]; byte age;   /* the entry: its stamps, 0 where there is none; age of its value */

/* The readers, index 2r and 2r+1 for the two tags. */
byte fs[NR*2], fage[NR]; /* the entry that it found */
byte got[NR*2];          /* the stamps that it has read */
byte val[NR]; bit hv[NR]; /* age of the value in hand, and whether there is one */
bit spared[NR];          /* a spare was counted since it has begun to look */
#if FLIGHT
bit flying[NR]; bit served[NR]; byte leader[NR];
#endif

byte f, h; bit g;       /* scratch, zero between steps */

inline fresh(t) {       /* f = a stamp that nothing refers to */
  f = 1;
  do
  :: g = (stamp[t]==f || es[t]==f); h = 0;
     do
     :: h<NR -> g = g || got[h*2+t]==f || fs[h*2+t]==f; h++
     :: else -> break
     od;
     h = 0;
     if :: g -> g = 0; f++ :: else -> break fi
  od
}

inline begin(r) {       /* what is out of date now was so when this read began */
  age = (age & (255-(1<<r))) | ((age>>7)<<r); h = 0;
  do
  :: h<NR -> val[h] = (val[h] & (255-(1<<r))) | ((val[h]>>7)<<r); fage[h] = (fage[h] & (255-(1<<r))) | ((fage[h]>>7)<<r); h++
  :: else -> break
  od;
  h = 0
}

inline visible() {      /* a commit that changes the row: from here on every SELECT sees another value */
  if :: es[0]!=0 -> age = age|NOW :: else fi; h = 0;
  do
  :: h<NR -> if :: hv[h] -> val[h] = val[h]|NOW :: else fi;
     if :: fs[h*2]!=0 -> fage[h] = fage[h]|NOW :: else fi; h++
  :: else -> break
  od;
  h = 0
}

#define RETURNED(r,a) assert(((a) & (1<<r))==0)
#define ALIVE(r,t) (fs[r*2+t]==stamp[t] && !suspended[t])

inline look(r,t) {
  if :: !ALIVE(r,t) -> fs[r*2]=0; fs[r*2+1]=0; fage[r]=0 :: else -> printf("EV reader %d finds tag %d alive\n", r, t) fi
}

inline mint(r,t) {
  if
  :: dirty[t]!=0 -> bypass=1
  :: dirty[t]==0 && stamp[t]!=0 -> got[r*2+t]=stamp[t]
  :: else -> fresh(t); stamp[t]=f; got[r*2+t]=f; f = 0
  fi;
  printf("EV reader %d has stamp %d of tag %d\n", r, got[r*2+t], t)
}

proctype Reader(byte r) {
  bit bypass;
idle:
end_idle:
  atomic {
    got[r*2]=0; got[r*2+1]=0; val[r]=0; hv[r]=0; bypass=0; begin(r); spared[r]=0;
    if :: es[0]!=0 -> fs[r*2]=es[0]; fs[r*2+1]=es[1]; fage[r]=age; printf("EV reader %d finds the entry\n", r) :: else -> goto read fi
  }
again:
  if
  :: atomic { true -> look(r,0); if :: fs[r*2]==0 -> goto read :: else fi }; atomic { look(r,1); if :: fs[r*2]==0 -> goto read :: else fi }
  :: atomic { true -> look(r,1); if :: fs[r*2]==0 -> goto read :: else fi }; atomic { look(r,0); if :: fs[r*2]==0 -> goto read :: else fi }
  fi;
  atomic {
    if :: COUNT!=0 && spared[r] -> spared[r]=0; goto again :: else fi;
    printf("EV reader %d HIT, age %d\n", r, fage[r]); RETURNED(r,fage[r]); fs[r*2]=0; fs[r*2+1]=0; fage[r]=0; goto idle
  }
read:
  atomic { spared[r]=0; got[r*2]=0; got[r*2+1]=0 }
  if
  :: atomic { true -> mint(r,0); if :: bypass -> goto idle :: else fi }; atomic { mint(r,1); if :: bypass -> goto idle :: else fi }
  :: atomic { true -> mint(r,1); if :: bypass -> goto idle :: else fi }; atomic { mint(r,0); if :: bypass -> goto idle :: else fi }
  fi;
  atomic { if :: COUNT==1 && spared[r] -> goto read :: else fi }
#if FLIGHT
  atomic {
    h = 0;
    do
    :: h<NR && h!=r && flying[h] && got[h*2]==got[r*2] && got[h*2+1]==got[r*2+1] ->
         leader[r]=h+1; got[r*2]=0; got[r*2+1]=0; printf("EV reader %d joins reader %d\n", r, h); h = 0; goto follow
    :: else -> if :: h<NR -> h++ :: else -> break fi
    od;
    h = 0 }
#endif
  atomic { val[r]=0; hv[r]=1; printf("EV reader %d SELECT\n", r);
#if FLIGHT
    flying[r]=1
#endif
  }
#if FLIGHT
  atomic { flying[r]=0; h = 0;
    do
    :: h<NR && leader[h]==r+1 -> val[h]=val[r]; hv[h]=1; served[h]=1; leader[h]=0; h++
    :: h<NR && leader[h]!=r+1 -> h++
    :: h==NR -> break
    od;
    h = 0 }
#endif
  if   /* also while the stamps are suspended; with a dead one it is never valid */
  :: atomic { got[r*2]==stamp[0] && got[r*2+1]==stamp[1] -> es[0]=got[r*2]; es[1]=got[r*2+1]; age=val[r]; printf("EV reader %d fills, age %d\n", r, age); goto idle }
  :: goto idle
  fi;
#if FLIGHT
follow:
  atomic { served[r] -> served[r]=0; printf("EV reader %d gets the result, age %d\n", r, val[r]); RETURNED(r,val[r]); goto idle }
#endif
}

inline kill(t) {
  if :: es[t]!=0 && es[t]==stamp[t] -> es[0]=0; es[1]=0; age=0 :: else fi;   /* nobody finds it valid again */
  stamp[t]=0; suspended[t]=0
}

inline intend(t) { suspended[t] = (stamp[t]!=0); dirty[t] = dirty[t]|b; printf("EV writer %d: intent on tag %d\n", b, t) }

inline release(t) {
  if :: RESTORE && (dirty[t]&b)!=0 && dirty[t]!=b -> skip :: else -> kill(t) fi;
  dirty[t] = dirty[t] & ~b; printf("EV writer %d releases tag %d\n", b, t)
}

inline count() { h = 0; do :: h<NR -> spared[h]=1; h++ :: else -> break od; h = 0 }

inline spare(t) {
  dirty[t] = dirty[t] & ~b;
  if :: dirty[t]==0 || ALONE -> suspended[t]=0 :: else fi;
  printf("EV writer %d spares tag %d\n", b, t)
}

proctype Writer(byte w) {
  byte b = 1<<w; bit c, changed;
next:
end_next:
  atomic { changed=0; c=0; if :: BOTH -> c=1 :: true fi; intend(c) }
  if
  :: atomic { visible(); changed=1; printf("EV writer %d COMMIT is visible\n", b) }
  :: atomic { true -> printf("EV writer %d has changed something else, or nothing\n", b) }
  :: atomic { CRASH -> if :: WRONG -> count(); spare(c) :: else fi; goto unknown }
  fi;
  if
  :: true -> goto unsure                               /* what it has changed was not told */
  :: true
  fi;
  if :: changed && !EARLY -> atomic { intend(1-c) } :: else fi;
  if :: LATE -> atomic { spare(c) }; atomic { count() } :: else -> atomic { count() }; atomic { spare(c) } fi;
  if :: changed && EARLY -> atomic { intend(1-c) } :: else fi;
  if :: changed -> atomic { release(1-c) } :: else fi;
  goto next;
unknown:
  if
  :: atomic { visible(); printf("EV writer %d COMMIT is visible\n", b) }
  :: true
  fi;
unsure:
  atomic { release(c); goto next }
}

/* A transaction has run its statements before it marks, and marks the row alone. */
proctype Transaction(byte w) {
  byte b = 1<<w;
next:
end_next:
  atomic { intend(1) }
  if :: atomic { visible(); printf("EV writer %d COMMIT is visible\n", b) } :: true fi;
  atomic { release(1); goto next }
}

proctype Evictor() {
end:
  do
  :: atomic { stamp[0]!=0 -> kill(0); printf("EV evict stamp 0\n") }
  :: atomic { stamp[1]!=0 -> kill(1); printf("EV evict stamp 1\n") }
  :: atomic { es[0]!=0 -> es[0]=0; es[1]=0; age=0 }
  od
}

init { atomic {
  run Reader(0); if :: NR>1 -> run Reader(1) :: else fi;
  run Writer(0); if :: NW>1 -> run Writer(1) :: else fi; if :: NW>2 -> run Transaction(2) :: else fi;
  if :: EVICT -> run Evictor() :: else fi
} }
