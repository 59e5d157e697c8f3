package core

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/internal/space"
	"github.com/cachedpg/cachedpg/keying"
	"github.com/cachedpg/cachedpg/store"
)

// Where a transaction has run code that its texts do not show (keying.Plan.Asks)
// PostgreSQL is asked, in the transaction and as the last thing before COMMIT,
// what it has written:
//
//   - Every relation that it wrote is locked by it until its end, ROW EXCLUSIVE or
//     stronger: pg_locks. What a savepoint has undone is not locked any more.
//   - Changes of the catalog leave no lock that says so, but PostgreSQL counts the rows that it
//     writes in its own tables. The counts may include those of the session's transactions
//     before, which is more than is needed, never less.
//   - Temporary objects are entered in some of these tables, too (mixedTables). If no other was written,
//     what concerns everybody shows: a row of something permanent that is no older than the
//     transaction, or the lock on what it was a part of, which DROP, ALTER, triggers and
//     rules take. Of what is no more, the catalog in use knows whether it was there for others.
//   - A held cursor's query runs in COMMIT, after any question.
//   - Settings are compared with those that are known of the session.
//
// Deferred triggers would run in COMMIT, after the question. So they are run
// before it, where the schema has any.

// setImmediate runs what is deferred to COMMIT. An error is one that COMMIT
// would give.
const setImmediate = "SET CONSTRAINTS ALL IMMEDIATE"

// transactionWrites is the question. Large objects and statistics are tables of
// the catalog that nothing cached depends on.
var transactionWrites = writesWith(backend.PinnedCommitSQL)

// writesAside is the same where synchronous_commit is asked for in another way.
var writesAside = writesWith("''")

func writesWith(commits string) string {
	return `SELECT pg_catalog.concat_ws('|', coalesce(CASE WHEN ` + holds + ` THEN pg_catalog.pg_current_xact_id()
 ELSE pg_catalog.pg_current_xact_id_if_assigned() END::pg_catalog.text, ''),
 CASE WHEN held.exclusive OR ` + holds + ` OR pg_catalog.current_setting('track_counts') OPERATOR(pg_catalog.<>) 'on' THEN true
  WHEN NOT written.some THEN false WHEN written.others OR held.strong THEN true ELSE ` + permanentRows + ` END,
 held.relations, held.gone, ` + backend.StateSQL + `, ` + commits + `, ` + hasTemporaries + `)
 FROM (` + locksHeld + `) held, (` + catalogWritten + `) written`
}

// locksHeld gives the relations that are locked, those that are no more, with types, and whether something of
// others is locked as for a change.
const locksHeld = `SELECT coalesce(pg_catalog.string_agg(DISTINCT CASE WHEN lock.oid IS NULL THEN 0 ELSE lock.relation END::pg_catalog.text, ',')
   FILTER (WHERE lock.others AND (lock.oid IS NULL OR lock.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,m,f,v}'))), '') AS relations,
  coalesce(pg_catalog.string_agg(DISTINCT coalesce(lock.relation, lock.objid)::pg_catalog.text, ',')
   FILTER (WHERE lock.gone OR lock.exclusive AND lock.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass), '') AS gone,
  coalesce(pg_catalog.bool_or(lock.others AND lock.exclusive), false) AS exclusive,
  coalesce(pg_catalog.bool_or(lock.others AND (lock.mode OPERATOR(pg_catalog.=) ANY ('{ShareRowExclusiveLock,ExclusiveLock}')
    OR lock.relnamespace OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace)
   OR lock.exclusive AND lock.classid OPERATOR(pg_catalog.<>) ALL ('{pg_catalog.pg_type,pg_catalog.pg_constraint,pg_catalog.pg_attrdef,pg_catalog.pg_rewrite,` +
	`pg_catalog.pg_trigger,pg_catalog.pg_policy}'::pg_catalog.regclass[])), false) AS strong
  FROM (SELECT l.relation, l.classid, l.objid, l.mode, l.mode OPERATOR(pg_catalog.=) 'AccessExclusiveLock' AS exclusive, c.oid, c.relkind, c.relnamespace,
   l.relation IS NOT NULL AND coalesce(c.relpersistence OPERATOR(pg_catalog.<>) 't', pg_catalog.pg_table_is_visible(l.relation) IS NOT NULL) AS others,
   l.relation IS NOT NULL AND c.oid IS NULL AND pg_catalog.pg_table_is_visible(l.relation) IS NULL AS gone
   FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) l.relation
   WHERE l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() AND l.locktype OPERATOR(pg_catalog.=) ANY ('{relation,object}')
    AND l.mode OPERATOR(pg_catalog.<>) ALL ('{AccessShareLock,RowShareLock,ShareUpdateExclusiveLock}')) lock`

// mixedTables are those of the catalog in which temporary objects are entered, too.
const mixedTables = `'{pg_attrdef,pg_attribute,pg_class,pg_constraint,pg_depend,pg_index,pg_inherits,pg_namespace,pg_policy,pg_rewrite,pg_sequence,pg_shdepend,pg_trigger,pg_type}'`

// catalogWritten says whether any table of the catalog was written, one in which nothing temporary is, and
// columns that were there.
const catalogWritten = `SELECT pg_catalog.count(*) OPERATOR(pg_catalog.>) 0 AS some, coalesce(pg_catalog.bool_or(relname OPERATOR(pg_catalog.<>) ALL (` + mixedTables + `)), false) AS others,
  coalesce(pg_catalog.bool_or(relname OPERATOR(pg_catalog.=) 'pg_attribute' AND pg_catalog.pg_stat_get_xact_tuples_updated(oid) OPERATOR(pg_catalog.>) 0), false) AS columns
  FROM pg_catalog.pg_class WHERE relnamespace OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace AND relkind OPERATOR(pg_catalog.=) 'r'
  AND relname OPERATOR(pg_catalog.!~~) 'pg_largeobject%' AND relname OPERATOR(pg_catalog.!~~) 'pg_statistic%'
  AND (pg_catalog.pg_stat_get_xact_tuples_inserted(oid) OPERATOR(pg_catalog.>) 0 OR pg_catalog.pg_stat_get_xact_tuples_updated(oid) OPERATOR(pg_catalog.>) 0
   OR pg_catalog.pg_stat_get_xact_tuples_deleted(oid) OPERATOR(pg_catalog.>) 0)`

// permanentRows says whether the transaction, or one that began after it, wrote the row of something permanent. The
// columns of new relations are not looked at, the relations are.
const permanentRows = `(EXISTS (SELECT FROM pg_catalog.pg_class WHERE relpersistence OPERATOR(pg_catalog.<>) 't' AND ` + young + `)
   OR EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname OPERATOR(pg_catalog.!~) '^pg_(toast_)?temp_' AND ` + young + `)
   OR EXISTS (SELECT FROM pg_catalog.pg_type WHERE typnamespace OPERATOR(pg_catalog.<>) ALL (` + temporarySchemas + `) AND ` + young + `)
   OR EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE connamespace OPERATOR(pg_catalog.<>) ALL (` + temporarySchemas + `) AND ` + young + `)
   OR written.columns AND EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE ` + young + `
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) a.attrelid AND c.relpersistence OPERATOR(pg_catalog.=) 't')))`

const temporarySchemas = `ARRAY(SELECT oid FROM pg_catalog.pg_namespace WHERE nspname OPERATOR(pg_catalog.~) '^pg_temp_')`

// young is true of rows that the transaction has written. Those of its subtransactions have ids above its own.
const young = `pg_catalog.age(xmin) OPERATOR(pg_catalog.<=) 0`

// hasTemporaries is true where the session has temporary objects.
const hasTemporaries = `pg_catalog.pg_my_temp_schema() OPERATOR(pg_catalog.<>) 0::pg_catalog.oid AND (
  EXISTS (SELECT FROM pg_catalog.pg_class WHERE relnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()) OR
  EXISTS (SELECT FROM pg_catalog.pg_type WHERE typnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()))`

// holds is true when COMMIT will run the query of a held cursor, which may write.
const holds = "EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable AND creation_time OPERATOR(pg_catalog.>=) pg_catalog.transaction_timestamp())"

// writes is PostgreSQL's answer.
type writes struct {
	xid       string // "" if it has written nothing
	catalog   bool   // it changed the catalog, or may have, or is not at its end
	relations []uint32
	gone      []uint32 // relations and types that were there, of the session or of everybody
	state     string   // of the session
	commits   backend.CommitMode
	temporary bool // the session has temporary objects
}

func parseWrites(answer string) (w writes, err error) {
	field := strings.Split(answer, "|")
	if len(field) != 7 {
		return w, fmt.Errorf("cachedpg: PostgreSQL gives %d facts about the transaction, not 7", len(field))
	}
	w = writes{xid: field[0], catalog: field[1] != "f", state: field[4], commits: backend.CommitModeOf(field[5]), temporary: field[6] != "f"}
	if w.relations, err = parseOIDs(field[2]); err == nil {
		w.gone, err = parseOIDs(field[3])
	}
	return w, err
}

func parseOIDs(list string) (oids []uint32, err error) {
	if list == "" {
		return nil, nil
	}
	for oid := range strings.SplitSeq(list, ",") {
		n, err := strconv.ParseUint(oid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("cachedpg: PostgreSQL gives %q as an OID", oid)
		}
		oids = append(oids, uint32(n))
	}
	return oids, nil
}

// questions are what is to be sent before COMMIT; the answer of the last one is
// for take.
func (e *effect) questions() []string {
	questions := e.plainQuestions()
	if last := &questions[len(questions)-1]; e.where.drifts() {
		*last = backend.WithIdentity(*last)
	}
	return questions
}

func (e *effect) plainQuestions() []string {
	switch {
	case e.nameless && e.also.asks && (e.view == nil || e.view.Snapshot.Deferrable()):
		return []string{setImmediate, "SELECT ''"}
	case e.nameless:
		return []string{"SELECT ''"}
	case !e.also.asks:
		return []string{transactionFacts}
	case e.view == nil || e.view.Snapshot.Deferrable():
		return []string{setImmediate, transactionWrites}
	}
	return []string{transactionWrites}
}

// askedAside are the same for ask: setImmediate is left out, and what is to last is apart.
func (e *effect) askedAside() (question, lasting string) {
	if !e.also.asks {
		lasting = transactionFacts
		if e.where.drifts() {
			lasting = backend.WithIdentity(lasting)
		}
		return "", lasting
	}
	question = writesAside
	if e.where.drifts() {
		question = backend.WithIdentity(question)
	}
	return question, "SELECT " + backend.PinnedCommitSQL
}

// take adds what the transaction says of itself.
func (e *effect) take(answer string) error {
	answer = e.whereFrom(answer)
	if e.nameless {
		return nil
	}
	if !e.also.asks {
		e.takeFacts(answer)
		return nil
	}
	w, err := parseWrites(answer)
	if err != nil {
		return err
	}
	e.xid = w.xid
	e.settles(w.commits)
	if known := e.c.known; w.temporary || known.temporaries != nil || known.session != nil && known.session.State != w.state {
		e.also.session = true
	}
	w.catalog = w.catalog || len(w.gone) > 0 && (e.view == nil || e.space == nil || e.view != e.space.View.Load() || slices.ContainsFunc(w.gone, e.view.Snapshot.Permanent))
	bounded := !w.catalog && e.view != nil
	if bounded {
		e.tags, bounded = keying.WrittenTags(e.tags, w.relations, e.view.Snapshot)
	}
	switch {
	case bounded || w.xid == "":
	case w.catalog:
		e.everything()
	default:
		// By which keys its rows are found is not known, but no name means anything
		// else than before. Others need not load the catalog again for it.
		e.tags = append(e.tags, store.Tag{Kind: store.TagSchema})
	}
	return nil
}

// settles records how the transaction commits, where code may have changed it.
func (e *effect) settles(commits backend.CommitMode) {
	e.commits = commits
	if commits != e.c.commits {
		e.also.session, e.also.durability = true, true
	}
}

// ask asks the open transaction. An error is one of what is deferred, or the connection's.
func (e *effect) ask(ctx context.Context) error {
	in := e.c.inner
	if e.also.asks && (e.view == nil || e.view.Snapshot.Deferrable()) {
		if _, err := in.ExecContext(ctx, setImmediate, nil); err != nil {
			return err
		}
	}
	if e.isRefused() {
		e.withoutAnswer()
		return nil
	}
	question, lasting := e.askedAside()
	answer, kept, err := in.Aside(ctx, question, lasting)
	switch {
	case backend.Unanswered(in, err):
		e.refuses(err)
		return nil
	case err != nil:
		return err
	case !e.also.asks:
		return e.take(kept)
	}
	if err := e.take(answer); err != nil {
		return err
	}
	e.settles(backend.CommitModeOf(kept))
	return nil
}

// The questions of which a denial is remembered.
const (
	aboutWrites = "which tables a transaction has written"
	aboutID     = "the id of a transaction"
)

func (e *effect) about() backend.Denial {
	what := backend.Denial{Question: aboutID, Role: e.c.role()}
	if e.also.asks {
		what.Question = aboutWrites
	}
	return what
}

// role is that of the session, "" if it is not known.
func (c *Conn) role() string {
	if s := c.known.session; s != nil && len(s.Values) > 2 {
		return s.Values[2]
	}
	return ""
}

// isRefused reports that PostgreSQL is known to refuse what there is to ask of the transaction.
func (e *effect) isRefused() bool {
	return e.c.role() != "" && e.c.d.denials.Of(e.about()) != nil
}

// refuses records that it was refused.
func (e *effect) refuses(err error) {
	e.c.d.denied(e.about(), err)
	e.withoutAnswer()
}

// denied tells of a question before a commit that was refused, and has it remembered.
func (d *DB) denied(what backend.Denial, err error) {
	d.problems.Note(space.WorkCommit, err)
	d.denials.Add(what, err)
}

// withoutAnswer goes on without one: the transaction may have written anything that its code can, and
// is identified by its backend instead of its id.
func (e *effect) withoutAnswer() {
	e.xid, e.nameless, e.commits = "", true, backend.CommitUnknown
	if e.also.asks {
		e.everything()
	}
}

// askAtCommit is ask for the caller's own transaction.
func (e *effect) askAtCommit(ctx context.Context) error {
	c := e.c
	if !c.tx.asks || c.inner.TxStatus() != 'T' {
		return nil // in a failed one PostgreSQL will answer ROLLBACK
	}
	e.also.asks = true
	if c.tx.mixed {
		e.view = nil // what is planned with several catalogs is bounded by none
	}
	if err := e.ask(ctx); err != nil {
		return err
	}
	if !e.hasWritten() {
		e.tags = nil
	}
	return nil
}
