/* place.pml: a database that moves from server 0 to server 1 while its clients stay. One cached query, one tag, a namespace for each server.
 *
 * What core.pml and epoch.pml show about one server is taken as shown: a command to the store is one step, a lease is there or not, and may
 * end at any time. Connections are those of a pooler, which moves when no transaction is open. A connection believes to be
 * on server 0, on server 1, or on a standby (2), and asks again whenever it likes. Values are ages, as in core.pml.
 *
 * Switches, as -DNAME=VALUE; those marked ! are mistakes, there to be found.
 *   NR NW      readers, writers
 *   START      0: all believe server 0  2: writers were connected when it was a standby
 *   MEMORY     0: a store that processes share  1: one process, the store in its memory; the first who finds server 1
 *              supersedes the namespace of server 0
 *   CHECK      1: a writer asks inside its transaction, before COMMIT, where it is  0!: it does not
 *   BLIND      1: a writer's statements run outside of transactions, so that nothing can be asked (with MEMORY)
 *   REGISTER   1: before the first mark in a namespace the epoch of the other is ended  2!: after the commit  0!: never
 *   GUARD      1: the question before an extension is answered by the server of the namespace alone  0!: by any
 *   EPOCH      1: an extension names its epoch  0!: it does not
 *   AFTER      1: a writer looks after its mark whether the namespace was superseded  0!: it does not (with BLIND)
 *   SETTLE     1: a namespace is not used before statements marked in its predecessor have ended  0!: it is (with BLIND)
 */
#ifndef NR
#define NR 1
#endif
#ifndef NW
#define NW 2
#endif
#ifndef START
#define START 0
#endif
#ifndef MEMORY
#define MEMORY 0
#endif
#ifndef CHECK
#define CHECK 1
#endif
#ifndef BLIND
#define BLIND 0
#endif
#ifndef REGISTER
#define REGISTER 1
#endif
#ifndef GUARD
#define GUARD 1
#endif
#ifndef EPOCH
#define EPOCH 1
#endif
#ifndef AFTER
#define AFTER 1
#endif
#ifndef SETTLE
#define SETTLE 1
#endif

bit at;                         /* where the pooler leads */
byte open;                      /* transactions */
byte adrift;                    /* statements marked in namespace 0 and not answered */
bit registered; bit superseded; /* namespace 1, namespace 0 */

/* By namespace. */
bit lease[2]; byte ep[2]; byte dirty[2]; byte stamp[2];
byte es[2]; byte ee[2]; bit old[2];     /* the entry: its stamp (0: none), its epoch, whether it is out of date */

/* By reader. */
byte rs[NR]; byte re[NR]; bit rn[NR]; bit rv[NR]; bit rold[NR];

byte ke[2];                     /* the epoch that the keeper of a namespace found */
byte f, h;

#define USED(x) (stamp[0]==x || stamp[1]==x || es[0]==x || es[1]==x || rs[0]==x || rs[NR-1]==x)
#define EPUSED(x) (ep[0]==x || ep[1]==x || ke[0]==x || ke[1]==x || re[0]==x || re[NR-1]==x)
#define MAYUSE(n) (lease[n] && (!MEMORY || n==1 || !superseded) && (!MEMORY || !SETTLE || n==0 || adrift==0))

inline finish(n) {                 /* of an epoch: what was stored in it is not found again */
  lease[n]=0; f=1; do :: EPUSED(f) -> f++ :: else -> break od; ep[n]=f; f=0; es[n]=0; ee[n]=0; old[n]=0; stamp[n]=0;
  printf("EV the epoch of namespace %d ends\n", n)
}
inline learn(k) {
  k=at;
  if :: MEMORY && at==1 && !superseded -> superseded=1; printf("EV namespace 0 is superseded\n") :: else fi
}
inline join(n) {
  if :: n==1 && !registered -> registered=1; if :: !MEMORY -> finish(0) :: else fi :: else fi
}

proctype Reader(byte r) {
  bit k;
end:
  do
  :: atomic { rs[r]==0 && (k!=at || (MEMORY && superseded && k==0)) -> learn(k); printf("EV reader %d knows server %d\n", r, k) }
  :: atomic { rs[r]==0 && MAYUSE(k) && es[k]!=0 && es[k]==stamp[k] && ee[k]==ep[k] ->
       printf("EV reader %d HIT in namespace %d, out of date %d\n", r, k, old[k]); assert(!old[k]) }
  :: atomic { rs[r]==0 && MAYUSE(k) && !(es[k]!=0 && es[k]==stamp[k]) && dirty[k]==0 ->   /* a miss mints */
       if :: stamp[k]==0 -> f=1; do :: USED(f) -> f++ :: else -> break od; stamp[k]=f; f=0 :: else fi;
       rs[r]=stamp[k]; re[r]=ep[k]; rn[r]=k; printf("EV reader %d has stamp %d of namespace %d\n", r, rs[r], k) }
  :: atomic { rs[r]!=0 && !rv[r] -> rv[r]=1; rold[r]=0; printf("EV reader %d SELECT on server %d\n", r, at) }
  :: atomic { rv[r] ->
       if :: stamp[rn[r]]==rs[r] && ep[rn[r]]==re[r] -> es[rn[r]]=rs[r]; ee[rn[r]]=re[r]; old[rn[r]]=rold[r];
             printf("EV reader %d fills namespace %d, out of date %d\n", r, rn[r], rold[r])
       :: else fi;
       rs[r]=0; re[r]=0; rn[r]=0; rv[r]=0; rold[r]=0 }
  od
}

inline visible() {
  h=0; do :: h<2 -> if :: es[h]!=0 -> old[h]=1 :: else fi; h++ :: else -> break od;
  h=0; do :: h<NR -> if :: rv[h] -> rold[h]=1 :: else fi; h++ :: else -> break od; h=0;
  printf("EV writer %d commits on server %d\n", w, at)
}
inline mark(n) { dirty[n]=dirty[n]|b; stamp[n]=0; printf("EV writer %d marks in namespace %d\n", w, n) }
inline release(n) { dirty[n]=dirty[n]&~b; stamp[n]=0 }

proctype Writer(byte w) {
  byte k, b;
  b=1<<w; k=START;
next:
end_next:
  if
  :: atomic { k!=at && k!=2 -> learn(k); printf("EV writer %d knows server %d\n", w, k); goto next }
#if BLIND
  :: atomic { if :: k==0 -> adrift++ :: else fi; mark(k) }
  fi;
  if
  :: atomic { AFTER && superseded && k==0 -> release(0); adrift--; learn(k); goto next }
  :: atomic { !(AFTER && superseded && k==0) -> skip }
  fi;
  atomic { visible() }
  atomic { release(k); if :: k==0 -> adrift-- :: else fi; goto next }
#else
  :: atomic { open++; printf("EV writer %d begins, on server %d\n", w, at) }
  fi;
  atomic { if :: CHECK && k!=at -> learn(k); printf("EV writer %d finds server %d\n", w, k) :: else fi }
  atomic { if :: k!=2 -> if :: REGISTER==1 -> join(k) :: else fi; mark(k) :: else fi }
  atomic { visible(); open-- }
  atomic { if :: k!=2 -> if :: REGISTER==2 -> join(k) :: else fi; release(k) :: else fi; goto next }
#endif
}

proctype Keeper(bit n) {        /* of a store that processes share; in memory a lease is what makes a namespace warm */
idle:
end_idle:
  atomic { if :: n==0 || at==1 -> ke[n]=ep[n] fi }
  if                            /* the question */
  :: atomic { !GUARD || at==n || (MEMORY && lease[n]) -> skip }
  :: atomic { GUARD && at!=n -> ke[n]=0; goto idle }
  fi;
  atomic { if :: !EPOCH || ke[n]==ep[n] -> lease[n]=1; printf("EV namespace %d has a lease\n", n) :: else fi; ke[n]=0; goto idle }
}

proctype World() {
end:
  do
  :: atomic { at==0 && open==0 -> at=1; printf("EV the pooler leads to server 1\n") }
  :: atomic { !MEMORY && lease[0] -> finish(0) }
  :: atomic { !MEMORY && lease[1] -> finish(1) }
  od
}

init {
  atomic {
    ep[0]=1; ep[1]=1;
    h=0; do :: h<NR -> run Reader(h); h++ :: else -> break od;
    h=0; do :: h<NW -> run Writer(h); h++ :: else -> break od; h=0;
    run Keeper(0); run Keeper(1); run World()
  }
}
