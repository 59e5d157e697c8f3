package core

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
)

// end commits the open transaction as tx.Commit does, and compares what the
// driver invalidates with what the transaction did.
func (j *judge) end() error {
	ctx, cancel := j.context()
	defer cancel()
	c := j.c
	if err := c.enter(); err != nil {
		j.Fatal(err)
	}
	e, err := c.beginCommit(ctx)
	if err != nil {
		_, _ = j.transcript(spoken{c}, "ROLLBACK", nil)
		j.verify()
		return err
	}
	tags := slices.Clone(e.tags)
	// What is deferred to COMMIT is to be covered already.
	violated := j.command("SET CONSTRAINTS ALL IMMEDIATE")
	if violated == nil {
		j.compare(tags)
	}
	err = c.inner.Commit(ctx)
	e.done(err)
	if violated != nil {
		err = violated
	}
	j.compareRows(tags)
	j.verify()
	return err
}

// facts is what PostgreSQL knows of a table.
type facts struct {
	name    string
	system  bool
	temp    bool
	storage int64 // changes when the contents are exchanged: TRUNCATE, REFRESH, rewriting DDL
	tuples  int64 // written by this transaction, and others before that are not reported yet
}

const factsQuery = `SELECT c.oid::int8, n.nspname || '.' || c.relname, n.nspname IN ('pg_catalog', 'information_schema', 'pg_toast'),
 c.relpersistence = 't', pg_catalog.pg_relation_filenode(c.oid)::int8,
 pg_catalog.pg_stat_get_xact_tuples_inserted(c.oid) + pg_catalog.pg_stat_get_xact_tuples_updated(c.oid) + pg_catalog.pg_stat_get_xact_tuples_deleted(c.oid)
 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'm', 'f')`

// entered are the system tables in which temporary objects are entered, too, and indexes that no plan stands on.
var entered = regexp.MustCompile(`^pg_catalog\.pg_(attrdef|attribute|class|constraint|depend|index|namespace|rewrite|sequence|type)$`)

// schemaQuery gives what those hold of other objects of users.
const schemaQuery = `SELECT coalesce(pg_catalog.md5(pg_catalog.string_agg(line, '|' ORDER BY line)), '') FROM (
 WITH permanent AS (SELECT * FROM pg_catalog.pg_class WHERE oid >= 16384 AND relpersistence <> 't'
  AND oid NOT IN (SELECT indexrelid FROM pg_catalog.pg_index JOIN pg_catalog.pg_class x ON x.oid = indexrelid WHERE NOT indisexclusion AND indpred IS NULL AND indexprs IS NULL
   AND x.relam NOT IN (SELECT a.oid FROM pg_catalog.pg_am a WHERE a.amname IN ('btree', 'hash')))),
 schemas AS (SELECT * FROM pg_catalog.pg_namespace WHERE nspname !~ '^pg_(toast_)?temp_')
 SELECT 'class' || (pg_catalog.to_jsonb(c) - '{relhasindex,relpages,reltuples,relallvisible,relallfrozen}'::text[])::text AS line FROM permanent c
 UNION ALL SELECT 'namespace' || n::text FROM schemas n
 UNION ALL SELECT 'attribute' || a::text FROM pg_catalog.pg_attribute a JOIN permanent c ON c.oid = attrelid
 UNION ALL SELECT 'attrdef' || a::text FROM pg_catalog.pg_attrdef a JOIN permanent c ON c.oid = adrelid
 UNION ALL SELECT 'index' || i::text FROM pg_catalog.pg_index i JOIN permanent c ON c.oid = indexrelid
 UNION ALL SELECT 'rewrite' || r::text FROM pg_catalog.pg_rewrite r JOIN permanent c ON c.oid = ev_class
 UNION ALL SELECT 'sequence' || s::text FROM pg_catalog.pg_sequence s JOIN permanent c ON c.oid = seqrelid
 UNION ALL SELECT 'constraint' || k::text FROM pg_catalog.pg_constraint k JOIN schemas n ON n.oid = connamespace WHERE k.oid >= 16384
 UNION ALL SELECT 'type' || t::text FROM pg_catalog.pg_type t JOIN schemas n ON n.oid = typnamespace WHERE t.oid >= 16384) lines`

// schema differs when the transaction has changed what others' queries depend on.
func (j *judge) schema() string { return fmt.Sprint(j.ask(j.c, schemaQuery)[0][0]) }

func (j *judge) facts() map[uint32]facts {
	found := make(map[uint32]facts)
	for _, row := range j.ask(j.c, factsQuery) {
		f := facts{name: fmt.Sprint(row[1]), system: row[2] == true, temp: row[3] == true}
		f.storage, _ = row[4].(int64)
		f.tuples, _ = row[5].(int64)
		found[uint32(row[0].(int64))] = f
	}
	return found
}

// heldLock is a relation that a transaction has locked.
type heldLock struct {
	oid  uint32
	name string
	kind string
	mode string
}

// locks are those of the session, seen from outside: what it has made itself is not among them.
func (j *judge) locks(modes string) []heldLock {
	j.Helper()
	rows, err := j.watch.Query(context.Background(), `SELECT DISTINCT coalesce(o.oid, c.oid)::int8, n.nspname || '.' || coalesce(o.relname, c.relname), coalesce(o.relkind, c.relkind)::text, l.mode
		FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation LEFT JOIN pg_catalog.pg_class o ON o.reltoastrelid = c.oid
		JOIN pg_catalog.pg_namespace n ON n.oid = coalesce(o.relnamespace, c.relnamespace)
		WHERE l.pid = $1 AND l.locktype = 'relation' AND l.granted AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
		AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND l.mode ~ $2
		AND coalesce(o.relpersistence, c.relpersistence) <> 't'`, pgx.QueryExecModeExec, int64(j.pid), modes)
	if err != nil {
		j.Fatalf("%s: %v", j.where, err)
	}
	var found []heldLock
	for rows.Next() {
		var oid int64
		var l heldLock
		if err := rows.Scan(&oid, &l.name, &l.kind, &l.mode); err != nil {
			j.Fatal(err)
		}
		l.oid = uint32(oid)
		found = append(found, l)
	}
	if rows.Err() != nil {
		j.Fatalf("%s: %v", j.where, rows.Err())
	}
	return found
}

// silent are system tables that nothing cached depends on; an entry in
// pg_shdepend alone is about a large object.
var silent = regexp.MustCompile(`^pg_catalog\.pg_(statistic|largeobject|description|shdescription|seclabel|shdepend)|^pg_toast\.`)

// compare: everything that the open transaction has written is among tags.
func (j *judge) compare(tags []store.Tag) {
	j.Helper()
	has := make(map[store.Tag]bool)
	for _, t := range tags {
		has[t] = true
	}
	if has[store.Tag{Kind: store.TagSchema}] {
		return
	}
	covered := func(oid uint32) bool { return has[store.Tag{Relation: oid, Kind: store.TagTable}] }
	parents := j.ancestors()
	check := func(oid uint32, name, how string) {
		for _, oid := range append(slices.Clone(parents[oid]), oid) {
			if !covered(oid) {
				j.defect("%s %s, and %d is not invalidated, only %v", how, name, oid, tagNames(tags, j.c.known.view))
				return
			}
		}
	}
	same := sync.OnceValue(func() bool { return j.schema() == j.permanent })
	after := j.facts()
	exchanged := j.exchanged
	for oid, a := range after {
		exchanged = exchanged || !a.system && a.storage != j.before[oid].storage && j.before[oid].name != ""
	}
	for _, oid := range slices.Sorted(maps.Keys(after)) {
		a, b := after[oid], j.before[oid]
		if b.tuples > a.tuples {
			b.tuples = 0 // PostgreSQL has reported them between the two questions
		}
		switch {
		case a.temp, a.tuples == b.tuples && a.storage == b.storage, silent.MatchString(a.name):
		case exchanged && (j.exchanged && a.system || a.name == "pg_catalog.pg_class"): // new storage is entered in the catalog, and nothing else
		case a.system && entered.MatchString(a.name) && same(): // what others see is as it was
		case b.name == "": // it is new, so nobody has read it
		case a.system:
			j.defect("wrote %s, and only %v is invalidated", a.name, tagNames(tags, j.c.known.view))
		default:
			check(oid, a.name, "wrote")
		}
	}
	// Who has no id has written nothing; what was to be written is locked all the same.
	wrote := j.ask(j.c, "SELECT pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL")[0][0] == true
	if wrote && !j.locked {
		for _, l := range j.locks("^(RowExclusive|ShareRowExclusive|Exclusive|AccessExclusive)") {
			if slices.Contains([]string{"r", "p", "m", "f"}, l.kind) {
				check(l.oid, l.name, l.mode+" of")
			}
		}
	}
}

func tagNames(tags []store.Tag, v *space.View) (names []string) {
	for _, t := range tags {
		if v == nil {
			names = append(names, keying.TagName(t, nil))
		} else {
			names = append(names, keying.TagName(t, v.Snapshot))
		}
	}
	slices.Sort(names)
	return names
}

// ancestors are PostgreSQL's own, not those of the snapshot.
func (j *judge) ancestors() map[uint32][]uint32 {
	found := make(map[uint32][]uint32)
	for _, row := range j.ask(j.c, `WITH RECURSIVE up (child, parent) AS (SELECT inhrelid, inhparent FROM pg_catalog.pg_inherits
		UNION SELECT up.child, i.inhparent FROM up JOIN pg_catalog.pg_inherits i ON i.inhrelid = up.parent)
		SELECT child::int8, parent::int8 FROM up JOIN pg_catalog.pg_class c ON c.oid = child WHERE c.relkind IN ('r', 'p', 'f')`) {
		child := uint32(row[0].(int64))
		found[child] = append(found[child], uint32(row[1].(int64)))
	}
	return found
}
