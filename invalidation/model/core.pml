/* core.pml: stamps, intents, COMMIT, resolution. The store forgets no intent here; epoch.pml is about one that does.
 *
 * One cached query depends on two tags. Readers and writers run for ever and die at any step. It is finite because
 * stamps and writer ids are used again once nothing refers to them (so each is unique as far as anyone can tell), and
 * because values are not versions: whoever holds a value holds bits instead that say whether it is out of date.
 *
 * Switches, as -DNAME=VALUE; those marked ! are mistakes, there to be found.
 *   NR NW NI   readers, writers, writer ids
 *   WK         each writer makes that many writes and stops; 0: for ever
 *   PROP       1: each read returns a value that was the database's at an instant within the read (P1; P2 follows)
 *              2: only that no hit is out of date while no write is under way (P2)
 *   PART       1: each tag in a partition of its own: one command is then two, in either order
 *   LONE       1: a write may also be a statement that runs alone, known by its backend, which may commit twice
 *   CRASH      1: writers die, or lose the answer of PostgreSQL
 *   EVICT      1: stamps and the entry vanish at any time  2!: intents too
 *   FLIGHT     1: readers of a process join a SELECT under way for the same stamps  2!: for the same key
 *   FENCE      1: intents of the dead are resolved when PostgreSQL says that they are over  0!: after a while
 *              2: nobody resolves them
 *   INTENT     1: intents before COMMIT  0!: only new stamps after COMMIT (cache_consistency=eventual)
 *   NAIVE      1!: no stamps: SET after a miss, DEL after COMMIT
 *   UNKNOWN    1!: the owner releases although it does not know what became of COMMIT
 *   REUSE      1!: a writer uses its id for its next write too
 *   MINT       1: a script mints where there is no intent  0!: SET NX, whatever intents there are
 *   LATE       1!: stamps are read after the SELECT
 *   NOACK      1!: COMMIT is sent although the store did not acknowledge the intents
 */
#ifndef NR
#define NR 2
#endif
#ifndef NW
#define NW 1
#endif
#ifndef NI
#define NI 2
#endif
#ifndef WK
#define WK 0
#endif
#ifndef PROP
#define PROP 1
#endif
#ifndef PART
#define PART 0
#endif
#ifndef LONE
#define LONE 0
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
#ifndef FENCE
#define FENCE 1
#endif
#ifndef INTENT
#define INTENT 1
#endif
#ifndef NAIVE
#define NAIVE 0
#endif
#ifndef UNKNOWN
#define UNKNOWN 0
#endif
#ifndef REUSE
#define REUSE 0
#endif
#ifndef MINT
#define MINT 1
#endif
#ifndef LATE
#define LATE 0
#endif
#ifndef NOACK
#define NOACK 0
#endif

#define GONE 15         /* a stamp that died and that only a late fill still holds */
#define NOW  128        /* bit of an age: the value is out of date now; bit r: it was when reader r's read began */

/* The store. A set of writers is a bit mask of their ids. */
byte stamp[2];          /* of a tag; 0: none */
byte dirty[2];          /* its intents */
bit  has; byte age; byte es[2];                  /* the entry: there, age of its value, its stamps */

/* The readers, index 2r and 2r+1 for the two tags. */
byte got[NR*2];         /* stamps that the mint returned */
byte val[NR]; bit hv[NR];                        /* age of the value in hand, and whether there is one */
#if PART
byte fs[NR*2], fe[NR*2], fage[NR];               /* a lookup half-way: stamps found, the entry's stamps, its age */
#endif
#if FLIGHT
bit flying[NR]; bit served[NR]; byte leader[NR]; /* r has sent its SELECT; r has joined leader[r]-1 and was served */
#endif

/* PostgreSQL. */
byte running;           /* writers whose transaction is in progress, or whose backend exists */

/* The writers. */
byte used;              /* ids that something may still refer to */
byte over;              /* ids whose owner is done with them, alive or dead */
byte todo;              /* ids whose owner wants them released */
byte asked;             /* the id that a resolver is about to drop */

byte f, g, h;           /* scratch, zero between steps */

#define DIRTY(t)   (INTENT && dirty[t]!=0)
#define VALID      (has && (NAIVE || (es[0]!=0 && es[0]==stamp[0] && es[1]==stamp[1])))
#define HELD(t,x)  (stamp[t]==x || es[t]==x)
#if PART
#define HALFWAY(r,t,x) (fs[(r)*2+t]==x || fe[(r)*2+t]==x)
#else
#define HALFWAY(r,t,x) false
#endif

inline fresh(t) {       /* f = a stamp that nothing refers to */
  f = 1;
  do
  :: f!=0 && HELD(t,f) -> f++
  :: else -> h = 0; g = 0;
     do
     :: h<NR -> if :: got[h*2+t]==f || HALFWAY(h,t,f) -> g = 1 :: else fi; h++
     :: else -> break
     od;
     h = 0;
     if :: g -> g = 0; f++ :: else -> break fi
  od
}

/* The entry dies with its stamp (unless a lookup half-way may still find it). Where nothing can tell one dead stamp from
 * another they become one: fewer states. */
inline kill(t) {
  if :: stamp[t]!=0 ->
#if !PART && !FLIGHT && !LATE
    h = 0;
    do
    :: h<NR -> if :: got[h*2+t]==stamp[t] -> got[h*2]=GONE; got[h*2+1]=GONE; val[h]=0 :: else fi; h++
    :: else -> break
    od;
    h = 0;
#endif
    if :: !NAIVE && !PART && es[t]==stamp[t] -> has=0; age=0; es[0]=0; es[1]=0 :: else fi;
    stamp[t]=0
  :: else fi
}

inline begin(r) {       /* what is out of date now was so when this read began */
  age = (age & (255-(1<<r))) | ((age>>7)<<r); h = 0;
  do
  :: h<NR -> val[h] = (val[h] & (255-(1<<r))) | ((val[h]>>7)<<r);
#if PART
     fage[h] = (fage[h] & (255-(1<<r))) | ((fage[h]>>7)<<r);
#endif
     h++
  :: else -> break
  od;
  h = 0
}

inline visible() {      /* a commit: from here on every SELECT sees another value */
  if :: has -> age = age|NOW :: else fi; h = 0;
  do
  :: h<NR -> if :: hv[h] && got[h*2]!=GONE -> val[h] = val[h]|NOW :: else fi;
#if PART
     if :: fe[h*2]!=0 -> fage[h] = fage[h]|NOW :: else fi;
#endif
     h++
  :: else -> break
  od;
  h = 0
}

#if PROP==1
#define RETURNED(r,a) assert(((a) & (1<<r))==0)
#else
#define RETURNED(r,a) assert(((a) & NOW)==0 || used!=0)
#endif

inline mint(r,t) {
  if
  :: MINT && DIRTY(t) -> bypass=1
  :: (!MINT || !DIRTY(t)) && stamp[t]!=0 -> got[r*2+t]=stamp[t]
  :: else -> fresh(t); stamp[t]=f; got[r*2+t]=f; printf("EV reader %d mints stamp %d of tag %d\n", r, f, t); f = 0
  fi
}

proctype Reader(byte r) {
  bit bypass;
#if PART
  bit r0, r1;
#endif
idle:
end_idle:
  atomic { got[r*2]=0; got[r*2+1]=0; val[r]=0; hv[r]=0; bypass=0; begin(r) }
#if PART
  do   /* one MGET for each partition; the entry is where tag 0 is */
  :: atomic { !r0 -> r0=1; fs[r*2]=stamp[0]; if :: has -> fe[r*2]=es[0]; fe[r*2+1]=es[1]; fage[r]=age :: else fi }
  :: atomic { !r1 -> r1=1; fs[r*2+1]=stamp[1] }
  :: atomic { r0 && r1 -> r0=0; r1=0;
       if :: fe[r*2]!=0 && fe[r*2]==fs[r*2] && fe[r*2+1]==fs[r*2+1] -> bypass=1;
             printf("EV reader %d HIT, age %d\n", r, fage[r]); RETURNED(r,fage[r])
       :: else fi;
       fs[r*2]=0; fs[r*2+1]=0; fe[r*2]=0; fe[r*2+1]=0; fage[r]=0;
       if :: bypass -> goto idle :: else -> break fi }
  od;
#else
  atomic {
    if :: VALID -> printf("EV reader %d HIT, age %d\n", r, age); RETURNED(r,age); goto idle
    :: else fi;
    if :: NAIVE || LATE -> goto ask :: else fi
  }
#endif
script:
#if PART
  if
  :: atomic { true -> mint(r,0); if :: bypass -> goto idle :: else fi }; atomic { mint(r,1); if :: bypass -> goto idle :: else fi }
  :: atomic { true -> mint(r,1); if :: bypass -> goto idle :: else fi }; atomic { mint(r,0); if :: bypass -> goto idle :: else fi }
  fi;
#else
  /* A bypass is a SELECT of its own. Its value is never out of date when it is read, so there is nothing to check. */
  atomic { mint(r,0); if :: !bypass -> mint(r,1) :: else fi; if :: bypass -> goto idle :: else fi;
           if :: got[r*2]==GONE || got[r*2+1]==GONE -> got[r*2]=GONE; got[r*2+1]=GONE :: else fi;
           if :: LATE -> goto fill :: else fi }
#endif
#if FLIGHT
  atomic {
    h = 0;
    do
    :: h<NR && h!=r && flying[h] && (FLIGHT==2 || (got[h*2]==got[r*2] && got[h*2+1]==got[r*2+1])) ->
         leader[r]=h+1; got[r*2]=0; got[r*2+1]=0; printf("EV reader %d joins reader %d\n", r, h); h = 0; goto follow
    :: h<NR -> h++
    :: else -> break
    od;
    h = 0 }
#endif
ask:
  atomic { val[r]=0; hv[r]=1; printf("EV reader %d SELECT\n", r);
#if FLIGHT
    flying[r]=1
#endif
  }
#if LATE
  goto script;
#endif
fill:
#if FLIGHT
  atomic { flying[r]=0; h = 0;         /* the followers get the value in hand, as old as it is by now */
    do
    :: h<NR && leader[h]==r+1 -> val[h]=val[r]; hv[h]=1; served[h]=1; leader[h]=0; h++
    :: h<NR && leader[h]!=r+1 -> h++
    :: h==NR -> break
    od;
    h = 0 }
#endif
  if
  :: atomic {
       printf("EV reader %d fills, age %d\n", r, val[r]);
       if
       :: PART || NAIVE || (got[r*2]==stamp[0] && got[r*2+1]==stamp[1]) -> has=1; age=val[r]; es[0]=got[r*2]; es[1]=got[r*2+1]
       :: else -> has=0; age=0; es[0]=0; es[1]=0       /* an entry that will never be valid */
       fi;
       goto idle }
  :: goto idle                                         /* the reader dies, or the fill is dropped */
  fi;
#if FLIGHT
follow:
  atomic { served[r] -> served[r]=0; printf("EV reader %d gets the result, age %d\n", r, val[r]); RETURNED(r,val[r]); goto idle }
#endif
}

inline collect() {      /* ids that nothing refers to any more may be used again */
  g = over & ~(dirty[0]|dirty[1]) & ~asked;
#if !INTENT
  g = g & ~todo;
#endif
  used = used & ~g; over = over & ~g; todo = todo & ~g; g = 0
}
#if REUSE
#define END used = used & ~b; todo = todo & ~b; b = 0; tags = 0; lone = 0
#else
#define END over = over|b; collect(); b = 0; tags = 0; lone = 0
#endif
inline intend(t) {
  if :: INTENT && (tags & (1<<t))!=0 -> kill(t); dirty[t] = dirty[t]|b; printf("EV writer %d: intent on tag %d\n", b, t) :: else fi
}

proctype Writer(byte w) {
  byte b, tags, k; bit lone, sent;
next:
end_next:
  atomic {
    used != (1<<NI)-1 && (WK==0 || k<WK) ->
    if :: WK>0 -> k++ :: else fi;
    if :: (used&1)==0 -> b=1 :: (used&1)!=0 && (used&2)==0 -> b=2 :: (used&3)==3 -> b=4 fi;
    used = used|b;
    if :: tags=1 :: tags=2 :: tags=3 fi;
    if :: lone=0 :: LONE -> lone=1; tags=3 fi;           /* the schema tag: everything depends on it */
    running = running|b; printf("EV writer %d begins, lone %d\n", b, lone)
  }
#if PART
  if
  :: atomic { true -> intend(0) }; if :: CRASH -> goto dead :: true -> atomic { intend(1) } fi
  :: atomic { true -> intend(1) }; if :: CRASH -> goto dead :: true -> atomic { intend(0) } fi
  :: atomic { CRASH -> goto dead }
  fi;
#else
  if
  :: atomic { true -> intend(0); intend(1) }
  :: NOACK -> skip
  :: atomic { CRASH -> goto dead }
  fi;
#endif
  atomic { sent=1 }
commit:
  if
  :: atomic { lone -> visible(); printf("EV writer %d commits in the middle\n", b) }
  :: true
  fi;
  if
  :: atomic { visible(); running = running & ~b; sent=0; printf("EV writer %d COMMIT is visible\n", b) }
  :: atomic { running = running & ~b; sent=0; todo = todo|b; printf("EV writer %d rolled back\n", b); END; goto next }
  :: atomic { CRASH -> printf("EV writer %d is gone, or does not know\n", b); if :: UNKNOWN -> todo = todo|b :: else fi; goto dead }
  fi;
  if
  :: atomic { todo = todo|b; printf("EV writer %d returns\n", b); END; goto next }
  :: atomic { CRASH -> END; goto next }
  fi;
dead:  /* what was sent may still happen */
  if
  :: atomic { sent -> sent=0; visible(); running = running & ~b; printf("EV writer %d COMMIT is visible\n", b); END; goto next }
  :: atomic { sent=0; running = running & ~b; END; goto next }
  fi
}

inline drop(t,set) { kill(t); dirty[t] = dirty[t] & ~(set) }

proctype Releaser() {   /* what the owners know; off their path, late, one command for each partition */
end:
  do
#if NAIVE
  :: atomic { todo!=0 -> has=0; age=0; todo=0; collect() }
#elif !INTENT
  :: atomic { todo!=0 -> kill(0); kill(1); todo=0; collect() }
#elif PART
  :: atomic { (dirty[0]&todo)!=0 -> drop(0,todo); collect() }
  :: atomic { (dirty[1]&todo)!=0 -> drop(1,todo); collect() }
#else
  :: atomic { ((dirty[0]|dirty[1])&todo)!=0 -> drop(0,todo); drop(1,todo); printf("EV release\n"); collect() }
#endif
  od
}

proctype Resolver() {   /* finds intents, asks PostgreSQL, drops what is over */
end:
  do
  :: atomic { asked==0 && (dirty[0]|dirty[1])!=0 ->
       g = dirty[0]|dirty[1];
       if :: (g&1)!=0 -> asked=1 :: (g&2)!=0 -> asked=2 :: (g&4)!=0 -> asked=4 fi;
       g = 0;
       if :: FENCE==1 && (running&asked)!=0 -> asked=0 :: else -> printf("EV resolver: %d is over\n", asked) fi }
  :: atomic { asked!=0 -> drop(0,asked); drop(1,asked); printf("EV resolver drops %d\n", asked); asked=0; collect() }
  od
}

proctype Evictor() {
end:
  do
  :: atomic { stamp[0]!=0 -> kill(0); printf("EV evict stamp 0\n") }
  :: atomic { stamp[1]!=0 -> kill(1); printf("EV evict stamp 1\n") }
  :: atomic { has -> has=0; age=0; es[0]=0; es[1]=0 }
  :: atomic { EVICT==2 && dirty[0]!=0 -> dirty[0]=0; printf("EV evict the intents on tag 0\n"); collect() }
  od
}

init { atomic {
  run Reader(0); if :: NR>1 -> run Reader(1) :: else fi; if :: NR>2 -> run Reader(2) :: else fi;
  run Writer(0); if :: NW>1 -> run Writer(1) :: else fi; if :: NW>2 -> run Writer(2) :: else fi;
  run Releaser();
  if :: FENCE!=2 && INTENT -> run Resolver() :: else fi;
  if :: EVICT -> run Evictor() :: else fi
} }

#ifdef P3
ltl p3 { <>[] (dirty[0]==0 && dirty[1]==0) }
#endif
