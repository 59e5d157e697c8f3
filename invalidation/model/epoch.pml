/* epoch.pml: a store that forgets intents, dies, is replaced, or cannot be reached by a writer. Epochs, leases, horizons, notices.
 *
 * One cached query, one tag. What core.pml shows about a store that remembers is taken as shown: a command is one step here.
 * Epoch ids are used again once nothing refers to them; values are ages, as in core.pml; hits are atomic, so one bit is enough.
 *
 * Time. A lease is one Lease long, counted from a reading of the store's clock before PostgreSQL was asked. Who waits one
 * Lease from an instant on (a writer from its notice, a commit from the birth of an epoch) knows that every lease for which PostgreSQL
 * was asked before that instant has run out, and every extension that is still under way will be too late. That is all that
 * time does here: before[s] and kbefore[k] hold for whom a lease and an extension count as asked before; a lease may run out sooner.
 *
 * Switches, as -DNAME=VALUE; those marked ! are mistakes, there to be found.
 *   NW NK NR   writers, keepers, readers      WK  writes of each writer, 0: for ever      LOST  bound on losses, for P3
 *   LOSS       1: FLUSHALL, eviction of D, L and stamps, each at any moment
 *   CUT        1: a writer may be unable to mark, or not learn that it did: cache_on_store_down=commit
 *   CRASH      1: a writer dies, its COMMIT sent or not; PostgreSQL drops the connection of a notice
 *   LONE       1: writes may be statements that run alone
 *   NS         2: failover to a replica, on which everything begins anew; each process finds out when it does
 *   EPOCH      1: D holds epoch and intents, names hold the epoch  0!: neither minting nor hits look at the epoch
 *   HORIZON    2: a new epoch waits for all transactions below an xid of the keeper's own
 *              1!: below pg_snapshot_xmax, which an xid in progress may be above  0!: for none
 *   MARKED     1: it does not wait for those whose intents are in its D  2!: nor for who had one in a D that was lost
 *   LAPSE      1: an epoch whose D outlived its lease waits for nobody but who commits past the store  2!: nor for statements that run alone
 *              0: it waits as if D had been lost
 *   NOTICE     2: one on a connection of the process, and a lock in the transaction that commits  1!: only the first
 *              0!: none, only the wait
 *   WAIT       0!: no wait for a lease after the notice
 *   RELATIVE   1!: an extension is for one Lease from its arrival
 *   REVIVE     1!: a lease that ran out is begun again in the same epoch
 *   KEEPLEASE  1!: the keeper begins an epoch without ending the lease of the one before
 *   ALONE      2: a statement that runs alone holds a lock of its session; a new epoch waits for those locks
 *              1!: the lock is on another connection of the process, and active statements count as well
 *              0!: only statements count that were active when the horizon was taken
 *   YOUNG      1: a commit marked in an epoch waits until that is a Lease old  0!: it does not (with NS=2)
 *   OLD        0: the old server takes no writes once the new one does  1: it does, for who is still connected
 *   ANNOUNCE   1: writers say in PostgreSQL on which server they mark, keepers renew only if all say theirs
 */
#ifndef NW
#define NW 1
#endif
#ifndef NK
#define NK 1
#endif
#ifndef NR
#define NR 1
#endif
#ifndef WK
#define WK 0
#endif
#ifndef LOST
#define LOST 0
#endif
#ifndef LOSS
#define LOSS 0
#endif
#ifndef CUT
#define CUT 0
#endif
#ifndef CRASH
#define CRASH 0
#endif
#ifndef LONE
#define LONE 0
#endif
#ifndef NS
#define NS 1
#endif
#ifndef EPOCH
#define EPOCH 1
#endif
#ifndef HORIZON
#define HORIZON 2
#endif
#ifndef MARKED
#define MARKED 1
#endif
#ifndef LAPSE
#define LAPSE 1
#endif
#ifndef NOTICE
#define NOTICE 2
#endif
#ifndef WAIT
#define WAIT 1
#endif
#ifndef RELATIVE
#define RELATIVE 0
#endif
#ifndef REVIVE
#define REVIVE 0
#endif
#ifndef KEEPLEASE
#define KEEPLEASE 0
#endif
#ifndef ALONE
#define ALONE 2
#endif
#ifndef YOUNG
#define YOUNG 1
#endif
#ifndef OLD
#define OLD 0
#endif
#ifndef ANNOUNCE
#define ANNOUNCE 0
#endif

#define BIRTH 64        /* in before: the wait of a young epoch */

/* The store, by server. */
byte e[NS]; byte cold[NS]; byte dirty[NS];       /* D: epoch (0: none), no lease yet (1: D is new, 2: it is not), intents */
byte gone;                                       /* intents that were lost (MARKED=2) */
byte lease[NS]; byte before[NS];                 /* L: epoch (0: none); who has waited for it when it is over */
byte stamp[NS]; byte se[NS];                     /* the stamp, and the epoch in its name */
byte es[NS]; byte ee[NS]; bit old[NS];           /* the entry: stamp it was filled with (0: none), epoch in its name, out of date */
bit promoted; bit young;                         /* server 1 is the master; its epoch is younger than one Lease */

/* PostgreSQL. Writers are bits. */
byte inprog;            /* transactions in progress: each has its xid */
byte backend;           /* backends of statements that run alone */
byte acting;            /* such a statement has arrived */
byte alone;             /* locks of such statements */
byte notice[3];         /* of processes: 0: commits past the store; 1+s: marks on server s (ANNOUNCE) */
byte lock[3];           /* the same, held by the transaction that commits */

/* Keepers and readers. */
byte ke[NK]; byte kbefore[NK]; bit late[NK];     /* epoch it found; as before; its extension will be too late */
byte he[NK]; byte hz[NK];                        /* horizon: of which epoch; who of that time is not over yet */
byte re[NR]; byte rs[NR]; bit rold[NR]; bit rv[NR];  /* epoch, stamp, value in hand: out of date, there */
byte todo[NS];          /* to be released */
byte lost;
byte f, h;

/* What a keeper asks: nobody commits past server s; in a new epoch also: what was under way at the horizon is over. */
#define NOBODY(s) ((notice[0]|lock[0])==0 && (!ANNOUNCE || (notice[2-s]|lock[2-s])==0))
#define ALONEOVER (!LONE || ALONE==0 || (alone==0 && (ALONE==2 || acting==0)))
#define OVER(k,s) ((hz[k]&~((MARKED -> dirty[s] : 0)|(MARKED==2 -> gone : 0)))==0 && ALONEOVER)
#define USED(x) (e[0]==x || e[NS-1]==x || lease[0]==x || lease[NS-1]==x || se[0]==x || se[NS-1]==x || ee[0]==x || ee[NS-1]==x \
  || ke[0]==x || ke[NK-1]==x || he[0]==x || he[NK-1]==x || re[0]==x || re[NR-1]==x)
#define STAMPUSED(x) (stamp[0]==x || stamp[NS-1]==x || es[0]==x || es[NS-1]==x || rs[0]==x || rs[NR-1]==x)

inline clean(s) {       /* what nobody can reach any more is as good as gone: fewer states */
  if :: se[s]!=0 && se[s]!=e[s] && se[s]!=lease[s] && !REVIVE && EPOCH -> se[s]=0; stamp[s]=0 :: else fi;
  if :: es[s]!=0 && (stamp[s]==0 || es[s]!=stamp[s] || ee[s]!=se[s]) -> es[s]=0; ee[s]=0; old[s]=0 :: else fi
}
inline expire(s) { lease[s]=0; before[s]=0 }
inline birth(s) {       /* a new epoch; what is young is D, which a lease that ran out does not end */
  if :: s==1 && e[s]==0 -> young=1; before[0]=before[0]|BIRTH; h=0;
        do :: h<NK -> kbefore[h]=kbefore[h]|BIRTH; h++ :: else -> break od; h=0
  :: else fi;
  f = 1; do :: USED(f) -> f++ :: else -> break od;
  cold[s]=(LAPSE && e[s]!=0 -> 2 : 1); e[s]=f; f = 0
}
inline waited(who) {    /* one Lease after it was set for who */
  h = 0; do :: h<NS -> if :: (before[h]&(who))!=0 -> expire(h); clean(h) :: else fi; h++ :: else -> break od;
  h = 0; do :: h<NK -> if :: (kbefore[h]&(who))!=0 -> late[h]=1 :: else fi; h++ :: else -> break od;
  h = 0
}
#define TAKES(s) (s==1 || !promoted || OLD)      /* the server takes writes */

proctype Reader(byte r) {
  byte s;
end:
  do
  :: atomic { NS>1 && promoted && s==0 && rs[r]==0 -> s=1 }
  :: atomic { rs[r]==0 && lease[s]!=0 ->         /* without a lease: bypass */
       if
       :: es[s]!=0 && es[s]==stamp[s] && (!EPOCH || (ee[s]==lease[s] && se[s]==lease[s])) ->
            printf("EV reader %d HIT on server %d, out of date %d\n", r, s, old[s]); assert(!old[s])
       :: else -> re[r]=lease[s]
       fi }
  :: atomic { rs[r]==0 && re[r]!=0 ->            /* the script that mints */
       if
       :: TAKES(s) && (!EPOCH || (lease[s]==re[r] && e[s]==re[r])) && dirty[s]==0 ->
            if
            :: stamp[s]!=0 && se[s]==re[r] -> rs[r]=stamp[s]
            :: else -> f = 1; do :: STAMPUSED(f) -> f++ :: else -> break od; stamp[s]=f; se[s]=re[r]; rs[r]=f; f = 0; clean(s)
            fi;
            printf("EV reader %d has stamp %d of epoch %d on server %d\n", r, rs[r], re[r], s)
       :: else -> re[r]=0
       fi }
  :: atomic { rs[r]!=0 && !rv[r] -> rv[r]=1; rold[r]=0; printf("EV reader %d SELECT\n", r) }
  :: atomic { rv[r] ->
       if
       :: TAKES(s) -> es[s]=rs[r]; ee[s]=re[r]; old[s]=rold[r]; printf("EV reader %d fills, out of date %d\n", r, rold[r]); clean(s)
       :: true                                   /* it dies, or the fill is dropped */
       fi;
       re[r]=0; rs[r]=0; rv[r]=0; rold[r]=0 }
  od
}

/* Renew, in a process that has readers or not. */
proctype Keeper(byte k) {
  byte s, c;
idle:
end_idle:
  atomic { ke[k]=0; kbefore[k]=0; late[k]=0; c=0;
    if :: NS>1 && promoted && s==0 -> s=1; he[k]=0; hz[k]=0 :: TAKES(s) fi }
  atomic {              /* Peek, and the store's clock */
    if
    :: !TAKES(s) -> goto idle
    :: TAKES(s) && e[s]!=0 && (cold[s] || lease[s]==e[s] || (REVIVE && lease[s]==0))
    :: TAKES(s) && (e[s]==0 || (!cold[s] && lease[s]!=e[s] && !(REVIVE && lease[s]==0))) ->
         birth(s); if :: !KEEPLEASE -> expire(s) :: else fi; clean(s); printf("EV keeper %d begins epoch %d on server %d\n", k, e[s], s)
    fi;
    ke[k]=e[s]; c=cold[s]; kbefore[k]=0;
    if :: he[k]!=0 && he[k]!=ke[k] -> he[k]=0; hz[k]=0 :: else fi }
  if                    /* the horizon: once for each epoch */
  :: atomic { c==1 && he[k]!=ke[k] -> he[k]=ke[k];
       hz[k] = (HORIZON==2 -> inprog : 0) | (LONE && ALONE==0 -> acting : 0);
       printf("EV keeper %d takes the horizon of epoch %d: waits for %d\n", k, ke[k], hz[k]) }
  :: atomic { !(c==1 && he[k]!=ke[k]) -> skip }
  fi;
  atomic {              /* the question */
    if
    :: NOBODY(s) && (c==0 || (c==1 && OVER(k,s)) || (c==2 && (LAPSE==2 || ALONEOVER))) ->
         printf("EV keeper %d is sure about epoch %d\n", k, ke[k])
    :: else -> goto idle
    fi }
  atomic {              /* Extend */
    if
    :: TAKES(s) && (!late[k] || RELATIVE) && e[s]==ke[k] && (cold[s] || lease[s]==0) && (cold[s] || REVIVE) ->
         lease[s]=ke[k]; cold[s]=0; before[s]=(RELATIVE -> 0 : kbefore[k]); clean(s); printf("EV keeper %d: lease of epoch %d on server %d\n", k, ke[k], s)
    :: TAKES(s) && (!late[k] || RELATIVE) && e[s]==ke[k] && lease[s]==ke[k] ->
         before[s]=before[s]&(RELATIVE -> 0 : kbefore[k]); printf("EV keeper %d: longer lease of epoch %d on server %d\n", k, ke[k], s)
    :: else
    fi;
    if :: !cold[s] -> he[k]=0; hz[k]=0 :: else fi;
    goto idle }
}

inline mark(s) {
  if :: e[s]==0 -> birth(s); expire(s); printf("EV writer %d begins epoch %d on server %d\n", w, e[s], s) :: else fi;
  dirty[s]=dirty[s]|b;
  if :: se[s]==e[s] || !EPOCH -> stamp[s]=0; se[s]=0 :: else fi;
  clean(s); printf("EV writer %d marks on server %d\n", w, s)
}
inline visible() {
  h = 0; do :: h<NS -> if :: es[h]!=0 -> old[h]=1 :: else fi; h++ :: else -> break od;
  h = 0; do :: h<NR -> if :: rv[h] -> rold[h]=1 :: else fi; h++ :: else -> break od;
  h = 0; printf("EV writer %d COMMIT is visible\n", w)
}
inline ended() {        /* nothing of the write is left in PostgreSQL */
  gone=gone&~b;
  inprog=inprog&~b; backend=backend&~b; acting=acting&~b; alone=alone&~b; lock[0]=lock[0]&~b; lock[1]=lock[1]&~b; lock[2]=lock[2]&~b;
  h = 0; do :: h<NK -> hz[h]=hz[h]&~b; h++ :: else -> break od; h = 0
}
inline post(i) {
  notice[i]=notice[i]|b;
  h = 0; do :: h<NS -> if :: lease[h]!=0 -> before[h]=before[h]|b :: else fi; h++ :: else -> break od;
  h = 0; do :: h<NK -> kbefore[h]=kbefore[h]|b; h++ :: else -> break od;
  h = 0; printf("EV writer %d posts notice %d\n", w, i)
}
#define unpost notice[0]=notice[0]&~b; notice[1]=notice[1]&~b; notice[2]=notice[2]&~b

proctype Writer(byte w) {
  byte b, s, i, k; bit lone, sent;
  byte stood;           /* 1+i: has waited since its notice i */
  b = 1<<w;
next:
end_next:
  if
  :: atomic { (notice[0]|notice[1]|notice[2])&b -> unpost; stood=0; printf("EV writer %d lifts its notice\n", w); goto next }
  :: atomic { NS>1 && promoted && s==0 -> s=1; goto next }
  :: atomic { (WK==0 || k<WK) && ((dirty[0]|dirty[NS-1]|todo[0]|todo[NS-1])&b)==0 ->   /* its next id is another one */
       if :: WK>0 -> k++ :: else fi;
       if
       :: lone=0; inprog=inprog|b; printf("EV writer %d begins: xid\n", w)
       :: LONE -> lone=1; backend=backend|b; if :: ALONE!=0 -> alone=alone|b :: else fi; printf("EV writer %d begins: alone\n", w)
       fi }
  fi;
  i = 1+s;
#if ANNOUNCE
  goto standing;
#endif
marking:
  if
  :: atomic { TAKES(s) -> mark(s); goto wait }
  :: atomic { CUT && TAKES(s) -> mark(s); i=0; printf("EV writer %d does not learn it\n", w) }
  :: atomic { CUT || !TAKES(s) -> i=0; printf("EV writer %d cannot reach the store\n", w) }
  :: atomic { CRASH -> goto dead }
  fi;
standing:
#if NOTICE>1
  atomic { if :: !lone || ANNOUNCE -> lock[i]=lock[i]|b :: else fi }    /* what runs alone has its own, see ALONE */
#endif
  if
  :: atomic { NOTICE==0 || (notice[i]&b)!=0 -> skip }
  :: atomic { NOTICE!=0 && (notice[i]&b)==0 -> unpost; post(i); stood=0 }
  fi;
  if
  :: atomic { stood==1+i || !WAIT -> skip }
  :: atomic { i==0 && stood==0 && NOTICE!=0 && TAKES(s) -> mark(s); goto wait }    /* trying again meanwhile */
  :: atomic { stood!=1+i && WAIT -> if :: NOTICE==0 -> h=0 :: else -> waited(b) fi; stood=1+i }
  fi;
  atomic { if :: NOTICE==0 || (notice[i]&b)!=0 -> skip :: else -> stood=0; goto standing fi }
  if :: i!=0 -> goto marking :: else -> goto send fi;
wait:
  atomic { s==0 || !YOUNG || !young -> skip }
send:
  atomic { sent=1 }     /* on its way */
#if LONE
  if
  :: atomic { lone -> acting=acting|b; printf("EV writer %d statement arrives\n", w) }
  :: atomic { !lone -> skip }
  :: atomic { CRASH -> goto dead }
  fi;
#endif
  if
  :: atomic { visible(); ended(); sent=0 }
  :: atomic { CRASH -> goto dead }
  fi;
  atomic { if :: dirty[s]&b -> todo[s]=todo[s]|b :: else fi; goto next }
dead:                   /* its connections go, and what was sent may still happen */
  atomic { printf("EV writer %d dies\n", w); unpost; stood=0; if :: ALONE==1 -> alone=alone&~b :: else fi }
  if
  :: atomic { sent -> visible() }
  :: true
  fi;
  atomic { ended(); sent=0; goto next }
}

/* Releases and resolution. Over is over, so PostgreSQL's answer and what is done about it are one step. */
#define CLEANING(s) \
  :: atomic { todo[s]!=0 -> dirty[s]=dirty[s]&~todo[s]; todo[s]=0; if :: se[s]==e[s] -> stamp[s]=0; se[s]=0 :: else fi; clean(s); printf("EV release\n") } \
  :: atomic { (dirty[s]&~(inprog|backend))!=0 -> dirty[s]=dirty[s]&(inprog|backend); printf("EV resolved\n") }

proctype Janitor() {
end:
  do
  CLEANING(0)
#if NS>1
  CLEANING(1)
#endif
  od
}

/* Whatever else happens. */
#define MORE (LOST==0 || lost<LOST)
#define ONCE if :: LOST!=0 -> lost++ :: else fi
#define FATE(s) \
  :: atomic { lease[s]!=0 -> expire(s); clean(s); printf("EV the lease on server %d is over\n", s) } \
  :: atomic { LOSS && MORE && (e[s]!=0 || stamp[s]!=0) -> ONCE; gone=(MARKED==2 -> gone|dirty[s] : 0); e[s]=0; cold[s]=0; dirty[s]=0; todo[s]=0; \
       if :: expire(s); stamp[s]=0; se[s]=0; printf("EV FLUSHALL\n") :: printf("EV D is evicted\n") fi; clean(s) } \
  :: atomic { LOSS && MORE && stamp[s]!=0 -> ONCE; stamp[s]=0; se[s]=0; clean(s) } \
  :: atomic { CRASH && MORE && ANNOUNCE && notice[1+s]!=0 -> ONCE; notice[1+s]=0; printf("EV PostgreSQL drops a notice\n") }

proctype World() {
end:
  do
  FATE(0)
#if NS>1
  FATE(1)
  :: atomic { young -> waited(BIRTH); young=0; printf("EV the epoch on server 1 is a Lease old\n") }
  :: atomic { !promoted -> promoted=1; printf("EV failover\n") }
#endif
  :: atomic { CRASH && MORE && notice[0]!=0 -> ONCE; notice[0]=0; printf("EV PostgreSQL drops a notice\n") }
  od
}

init { atomic {
  run Writer(0); if :: NW>1 -> run Writer(1) :: else fi;
  run Keeper(0); if :: NK>1 -> run Keeper(1) :: else fi;
  run Reader(0); if :: NR>1 -> run Reader(1) :: else fi;
  run Janitor(); run World()
} }

#ifdef P3
ltl p3 { []<> (e[0]!=0 && lease[0]==e[0] && dirty[0]==0) }
#endif
